"""Netlink requests and events: links, addresses, routes, rules, conntrack.

    messages    bytes ◀──▶ messages and attributes; knows no socket and no subject
    sockets     Requests: list, ask, change · Events: what happened; both with their errors
    rtnetlink   links, addresses, routes, rules: their bytes

Connection tracking and nftables have their subjects in ``ctnetlink`` and ``nf_tables``. Why
not by a package: docs/adr/0002.

Rule 1: this is the one place that opens a netlink socket or takes a message apart.
Rule 2: a socket sees the network namespace of the thread that opened it.
Rule 3: errors are the kernel's, as OSError with its number; what they mean the caller knows.
"""

from .sockets import Events, Heard, Requests

__all__ = ["Events", "Heard", "Requests"]
