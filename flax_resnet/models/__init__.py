"""Networks: designs, layers, counts."""
