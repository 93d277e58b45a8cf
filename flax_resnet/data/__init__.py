"""From files to batches of uint8 images."""
