"""What can be wrong: each cause is declared once, as a row with its words; causes are values."""

# With any of them all rows are known by name, so that causes of other processes can be read.
from . import endpoints, names, notes, services, slices

__all__ = ["endpoints", "names", "notes", "services", "slices"]
