"""How fast a corpus is labelled, beside everything else one could label it with."""
