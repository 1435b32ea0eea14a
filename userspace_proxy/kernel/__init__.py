"""The node's kernel as values: links, addresses, routes, conntrack, nftables, port holders.

    netlink/    requests and events; the only user of netlink sockets
    nf_tables/  tables, chains, sets and rules, over netlink

Each other module reads or changes one thing. None refers to Services, or decides what follows from
what it reads: callers pass that to ``policy``.

Rule 1: a socket belongs to the network namespace of the thread that opened it.
Rule 2: a refusal by the kernel is a SteeringError that states what was tried, or an OSError.
"""
