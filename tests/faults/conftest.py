"""The fixtures of the tests of inference serve here too."""

from tests.inference.conftest import cloud, colours, corpus, label

__all__ = ["cloud", "colours", "corpus", "label"]
