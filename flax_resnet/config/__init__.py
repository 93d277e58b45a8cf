"""The config: its fields, loading, and what it names."""
