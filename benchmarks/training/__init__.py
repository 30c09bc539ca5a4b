"""Times an update of a training."""
