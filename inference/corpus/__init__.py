"""Where documents come from: files, slices of them, the records in a slice, storage."""
