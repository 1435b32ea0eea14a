"""Sends netlink requests and receives events: links, addresses, routes, rules, conntrack, nftables.

    messages    bytes ◀──▶ messages and attributes
    sockets     Requests: list, ask, change · Events: what changed · explained: errors in words
    rtnetlink   links, addresses, routes, rules as bytes
    socket_users  the user of a TCP connection's client, or of a Unix listener

Conntrack entries and nftables are read and written by ``ctnetlink`` and ``nf_tables``. No library
is used: docs/adr/0002 gives the reasons.

Rule 1: no other package opens a netlink socket or parses a message.
Rule 2: a socket belongs to the network namespace of the thread that opened it.
Rule 3: sockets raise the kernel's errors as OSError; :func:`explained` adds the failed operation.
"""

from .sockets import Events, Requests, RouteSockets, explained

__all__ = ["Events", "Requests", "RouteSockets", "explained"]
