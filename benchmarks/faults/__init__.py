"""What a run survives: measured by doing it to one, many times."""
