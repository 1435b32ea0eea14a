"""Implements this package's commands, and the all-nodes variants of ``userspace-proxy``'s."""
