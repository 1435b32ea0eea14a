"""Asks the kernel whether any host of a link has an address.

    a packet to 10.244.0.99 ──▶ ARP, neighbour discovery ──no answer──▶ incomplete, 3 s later failed

A dial ends after 1 to 3 s, mostly before the kernel gives up and reports EHOSTUNREACH. The kernel
forgets entries that have failed: in a large table within seconds.

Rule 1: the table isn't listed, which takes 12 µs for each entry: in large clusters there are
10,000s (net.ipv4.neigh.default.gc_thresh3). Before Linux 5.0 the kernel answers nothing else, and
nothing is known.
Rule 2: the network namespace is that of the calling thread.

Source: include/uapi/linux/neighbour.h; arp(7); neigh_periodic_work() in net/core/neighbour.c.
"""

from __future__ import annotations

import contextlib
import socket

from .netlink import Requests, rtnetlink
from .netlink.sockets import NETLINK_ROUTE


def absent_on(ip: str) -> str:
    """Return the interface on whose link no host answers for an address; empty: one may.

    An address that the kernel has begun to look for a moment ago counts as absent.
    """
    with contextlib.suppress(OSError), Requests.open(NETLINK_ROUTE) as requests:
        link = _link_of(requests, ip)
        found = requests.ask(rtnetlink.find_neighbour(ip, link)) if link else None
        if found is not None and rtnetlink.is_absent(found):
            return _name_of(link)
    return ""


def link_of(ip: str) -> str:
    """Return the interface on whose link an address is; empty if it is behind a gateway."""
    with contextlib.suppress(OSError), Requests.open(NETLINK_ROUTE) as requests:
        link = _link_of(requests, ip)
        return _name_of(link) if link else ""
    return ""


def _link_of(requests: Requests, ip: str) -> int:
    """Return the number of the interface of an address's link; 0: it is behind a gateway."""
    route = rtnetlink.read_route(requests.ask(rtnetlink.find_route(ip))).open()
    return 0 if route.has_gateway else route.link


def _name_of(link: int) -> str:
    try:
        return socket.if_indextoname(link)
    except OSError:
        # It was removed meanwhile.
        return f"interface {link}"
