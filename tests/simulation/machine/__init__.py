"""A simulated machine: processes, the files that they share, netlink with routes and nf_tables.

Contract tests run against the real kernel, too.
"""
