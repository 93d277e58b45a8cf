"""Config files: base.py has the defaults, the others what differs."""
