"""Augmentation on the host, one file a transform."""
