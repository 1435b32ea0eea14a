"""The published fakes, and the pytest plugin."""
