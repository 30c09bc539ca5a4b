"""Train text classifiers on labelled data. This package builds on `models`, and knows neither Beam nor `inference`."""
