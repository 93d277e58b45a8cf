"""The device program: state, steps, mesh. Pure functions, no files."""
