"""Measurements: each a script whose result files say what ran, where and when."""
