"""Measures which faults a run survives, by causing them many times."""
