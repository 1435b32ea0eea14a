"""Runs commands: parses arguments, calls the package that does the work, and prints its results.

Packages are imported when a command uses them, so that ``--help`` and usage errors are instant.
"""

from .commands import main

__all__ = ["main"]
