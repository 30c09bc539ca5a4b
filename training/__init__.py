"""From labelled data to a trained model's directory. Builds on `models`; knows nothing of Beam or of `inference`."""
