"""The causes of failures: values, each declared once as a row with its texts."""

# Importing any of these registers all rows, so that causes from other processes can be read.
from . import endpoints, names, notes, services, slices

__all__ = ["endpoints", "names", "notes", "services", "slices"]
