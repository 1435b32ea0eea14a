"""Declares the causes of failures, each once, as a row with its texts."""

# Import all modules with rows: causes read from other processes refer to any row.
from . import endpoints, names, notes, services, slices

__all__ = ["endpoints", "names", "notes", "services", "slices"]
