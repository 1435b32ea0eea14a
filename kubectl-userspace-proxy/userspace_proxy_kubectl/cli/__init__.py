"""The commands of this package, and the parts of ``userspace-proxy``'s commands for all nodes."""
