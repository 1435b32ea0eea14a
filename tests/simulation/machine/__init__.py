"""A simulated machine: processes, the files that they share, netlink with routes and nf_tables.

Its contract tests also run against the real kernel.
"""
