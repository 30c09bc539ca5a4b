"""Estimates the time and the cost of a run from a sample of the corpus, and prices finished jobs."""
