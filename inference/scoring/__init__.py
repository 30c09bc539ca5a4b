"""From texts to labels: models in their runtimes, batches, and the scorer that feeds them."""
