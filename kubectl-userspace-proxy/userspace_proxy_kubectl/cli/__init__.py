"""The commands of this package, and the all-nodes variants of ``userspace-proxy``'s commands."""
