"""Reads and changes kernel state of the node, as plain values: links, routes, conntrack, nftables.

    netlink/    requests and events; the only user of netlink sockets
    nf_tables/  tables, chains, sets and rules, over netlink

Each other module reads or changes one kernel facility. No module refers to Services or makes
decisions: callers pass the values to ``policy``.

Rule 1: a socket belongs to the network namespace of the thread that opened it.
Rule 2: if the kernel refuses a call, the function raises a SteeringError that names the attempted
operation, or an OSError.
"""
