"""The commands of this package, and the all-nodes parts of commands of ``userspace-proxy``."""
