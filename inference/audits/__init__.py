"""Rooms of the audit: a sample of a run is drawn, labelled by hand, and turned into counts with intervals."""
