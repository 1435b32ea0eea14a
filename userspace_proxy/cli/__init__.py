"""The commands: parse arguments, call the package that does the work, and print its results.

Packages are imported when their command runs, so that ``--help`` and usage errors are instant.
"""

from .commands import main

__all__ = ["main"]
