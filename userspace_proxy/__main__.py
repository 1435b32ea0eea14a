"""Runs the ``userspace-proxy`` command as ``python -m userspace_proxy``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
