"""``python -m userspace_proxy``: the same as ``userspace-proxy``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
