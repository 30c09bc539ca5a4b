"""How good the trained models are, beside a TF-IDF baseline on the same splits."""
