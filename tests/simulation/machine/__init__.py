"""A simulated machine: processes, the files that they share, and netlink with routes and nf_tables.

Its contract tests also run against the real kernel.
"""
