"""Designs within a budget of parameters."""
