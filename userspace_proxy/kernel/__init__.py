"""The node's kernel as values: links, addresses, routes, conntrack, nftables, port holders.

    netlink/    requests and events, the only user of netlink sockets
    nf_tables/  tables, chains, sets and rules, over netlink

All other modules read or change one thing each, and know no Service.

Rule 1: a socket sees the network namespace of the thread that opened it.
Rule 2: what the kernel refuses is a SteeringError that says what was tried, or an OSError.
"""
