"""A trained network shown: a page to try it, and its answers as JSON."""
