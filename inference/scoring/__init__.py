"""Turns texts into labels: loads models into runtimes, cuts batches, and scores them."""
