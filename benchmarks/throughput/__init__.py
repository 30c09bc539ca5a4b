"""Measures throughput beside the alternatives."""
