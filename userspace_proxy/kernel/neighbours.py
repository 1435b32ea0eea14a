"""Asks the kernel whether an address has a route, and whether its next hop answers.

    a packet to 10.244.0.99 ──▶ ARP, neighbour discovery ──no answer──▶ incomplete, 3 s later failed
                                └ from it, or from the gateway

A dial times out after 1 to 3 s, usually before the kernel gives up and reports EHOSTUNREACH. The
kernel deletes failed entries: in a large table within seconds.

Rule 1: the table isn't listed, because that takes 12 µs per entry, and large clusters have tens of
thousands of entries (net.ipv4.neigh.default.gc_thresh3). Before Linux 5.0, the kernel can only list
the table, so no host is reported as absent.
Rule 2: the network namespace of the calling thread applies.

Source: include/uapi/linux/neighbour.h; arp(7); neigh_periodic_work() in net/core/neighbour.c.
"""

from __future__ import annotations

import contextlib
import socket

from ..model.failures import OWN_ROUTES, DialFailure
from ..model.node_network import NextHop
from .netlink import Requests, rtnetlink
from .netlink.sockets import NETLINK_ROUTE


def absent_hop(ip: str) -> NextHop | None:
    """Return the next hop to an address if no host answers there; None if a host may answer.

    A host counts as absent while the kernel is still resolving its address.
    """
    with contextlib.suppress(OSError), Requests.open(NETLINK_ROUTE) as requests:
        route = _route_to(requests, ip)
        found = requests.ask(rtnetlink.find_neighbour(route.gateway or ip, route.link))
        if rtnetlink.is_absent(found):
            return _hop_of(route)
    return None


def next_hop(ip: str) -> NextHop | None:
    """Return the next hop to an address; None if the kernel reports no route."""
    with contextlib.suppress(OSError), Requests.open(NETLINK_ROUTE) as requests:
        return _hop_of(_route_to(requests, ip))
    return None


def own_route_failure(failed: DialFailure, ip: str) -> DialFailure:
    """Return a dial's failure, or its counterpart in OWN_ROUTES if a route of this node caused it.

    The kernel is asked for the route, because a router may report the same errno by ICMP.
    """
    if failed.failure not in OWN_ROUTES:
        return failed
    # If the look-up succeeds, something else refused the dial, such as SELinux.
    with contextlib.suppress(OSError), Requests.open(NETLINK_ROUTE) as requests:
        try:
            requests.ask(rtnetlink.find_route(ip))
        except OSError as exc:
            if exc.errno == failed.number:
                return DialFailure(OWN_ROUTES[failed.failure], failed.number)
    return failed


def _route_to(requests: Requests, ip: str) -> rtnetlink.RouteDetails:
    return rtnetlink.read_route(requests.ask(rtnetlink.find_route(ip))).open()


def _hop_of(route: rtnetlink.RouteDetails) -> NextHop:
    return NextHop(_name_of(route.link), route.gateway)


def _name_of(link: int) -> str:
    try:
        return socket.if_indextoname(link)
    except OSError:
        # The interface was removed after the look-up.
        return f"interface {link}"
