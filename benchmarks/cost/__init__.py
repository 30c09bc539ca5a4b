"""Compares the estimated time of a run with the measured time."""
