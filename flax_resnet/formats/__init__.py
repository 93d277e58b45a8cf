"""To and from the files of other programs: PyTorch, StableHLO, ONNX, pickled arrays."""
