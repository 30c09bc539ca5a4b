"""Measures how time, memory and requests grow with the size and the shape of a corpus."""
