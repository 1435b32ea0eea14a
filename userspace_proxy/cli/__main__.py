"""``python -m userspace_proxy.cli``: the same as ``userspace-proxy``."""

import sys

from . import main

sys.exit(main())
