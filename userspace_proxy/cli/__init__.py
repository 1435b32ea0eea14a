"""The commands: they parse arguments, call the package that does the work, and print.

Packages are imported when their command runs, so that ``--help`` and a wrong flag are answered at
once.
"""

from .commands import main

__all__ = ["main"]
