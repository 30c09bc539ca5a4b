"""Imports the fixtures of the inference tests, which the tests in this folder share."""

from tests.inference.conftest import cloud, colours, corpus, label, s3

__all__ = ["cloud", "colours", "corpus", "label", "s3"]
