"""The commands ``demo`` and ``sandbox`` of ``userspace-proxy``."""
