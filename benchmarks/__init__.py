"""Holds the measurements. Each is a script whose result files say what ran, where and when."""
