"""Times how long a command takes to print its help or to refuse a mistake."""
