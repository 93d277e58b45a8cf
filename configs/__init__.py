"""Configurations: base.py has every field, the others what differs."""
