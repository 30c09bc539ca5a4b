"""Reads the corpus: storage, files, the slices of a file, and the records of a slice."""
