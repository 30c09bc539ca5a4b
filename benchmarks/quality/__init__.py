"""Measures the trained models beside a TF-IDF baseline on the same splits."""
