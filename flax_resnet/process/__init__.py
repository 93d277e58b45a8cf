"""What a process needs, whatever it computes."""
