"""The commands of this package, and what commands of ``userspace-proxy`` do for all nodes."""
