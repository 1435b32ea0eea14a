"""Reads which addresses of this node's links no host answers for.

    a packet to 10.244.0.99 ──▶ ARP, neighbour discovery ──no answer──▶ incomplete, 3 s later failed

A dial ends after 1 to 3 s, mostly before the kernel gives up and reports EHOSTUNREACH.

Rule 1: reading the table takes 12 µs for each entry, of which there are a thousand by default, and
in large clusters 10,000s (net.ipv4.neigh.default.gc_thresh3). So workers ask for one address.
Rule 2: the network namespace is that of the calling thread.

Source: include/uapi/linux/neighbour.h; arp(7).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping

from .netlink import Requests, rtnetlink
from .netlink.sockets import NETLINK_ROUTE


def absent_hosts() -> Mapping[str, str]:
    """Return the addresses that no host answers for, with the names of their interfaces.

    An address that the kernel has begun to look for a moment ago is among them. Empty if the table
    can't be read.
    """
    with contextlib.suppress(OSError):
        with contextlib.closing(Requests.open(NETLINK_ROUTE)) as requests:
            messages = requests.list_supported(rtnetlink.list_neighbours())
        found = [one for one in map(rtnetlink.read_neighbour, messages) if one.is_absent]
        return {one.ip: _name_of(one.link) for one in found if one.ip}
    return {}


def has_no_host(ip: str) -> bool:
    """Return whether no host answers for an address, at a cost that no table's size changes.

    False if the kernel can't be asked: before Linux 5.0, it only lists neighbours.
    """
    with contextlib.suppress(OSError), Requests.open(NETLINK_ROUTE) as requests:
        route = rtnetlink.read_route(requests.ask(rtnetlink.find_route(ip))).open()
        if not route.has_gateway:
            found = requests.ask(rtnetlink.find_neighbour(ip, route.link))
            return rtnetlink.read_neighbour(found).is_absent
    return False


def _name_of(link: int) -> str:
    try:
        return socket.if_indextoname(link)
    except OSError:
        # It was removed meanwhile.
        return f"interface {link}"
