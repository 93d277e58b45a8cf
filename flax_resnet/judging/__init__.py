"""A trained run judged: figures, corruptions, label errors, a page."""
