"""Measurements of speed, against PyTorch in the same run: python -m benchmarks.all."""

import os

from flax_resnet.process.malloc import keep_freed_memory

# As train.py does, before threads allocate. PyTorch gains by it, too, but for its memory.
if "PYTORCH_ALONE" not in os.environ:
    keep_freed_memory()
# JAX takes most of a GPU's memory at its start unless told not to, and PyTorch needs some too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
