"""What a trained text classifier is: labels, text recipe, network, decision, and the directory that holds them.

Needs torch and transformers; knows nothing of Beam, of training or of any cloud.
"""
