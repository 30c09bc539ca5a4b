"""Defines a trained text classifier: labels, text recipe, network, decision, and the directory that holds them.

The package needs torch and transformers. It knows nothing about Beam, training or any cloud.
"""
