"""Runs the ``userspace-proxy`` command as ``python -m userspace_proxy.cli``."""

import sys

from . import main

sys.exit(main())
