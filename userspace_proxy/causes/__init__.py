"""What can be wrong: causes are values, and each is declared once as a row that has its texts."""

# Importing any of them registers all rows, so that causes sent by other processes can be read.
from . import endpoints, names, notes, services, slices

__all__ = ["endpoints", "names", "notes", "services", "slices"]
