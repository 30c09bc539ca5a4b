"""Whether the estimated time of a run is the time it takes."""
