"""Measures how often an audit's interval holds the truth, and how wide it is."""
