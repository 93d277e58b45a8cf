"""ResNets in JAX/Flax: the paper "Residual Network Design" and a program to train on from there."""

__version__ = "0.1.0"
