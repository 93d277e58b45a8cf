"""From a run to a network that answers."""
