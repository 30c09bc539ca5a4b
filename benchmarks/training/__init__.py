"""How long an update of a training takes."""
