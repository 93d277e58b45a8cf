"""Measurements of speed, against PyTorch in the same run: python -m benchmarks.all."""
