"""Reads which addresses of this node's links no host answers for.

    a packet to 10.244.0.99 ──▶ ARP, neighbour discovery ──no answer──▶ incomplete, 3 s later failed

A dial ends after 1 to 3 s, mostly before the kernel gives up and reports EHOSTUNREACH.

Rule 1: reading costs a dump of the table, which has a thousand entries at most by default
(net.ipv4.neigh.default.gc_thresh3), so it follows failed dials only.
Rule 2: the network namespace is that of the calling thread.

Source: include/uapi/linux/neighbour.h; arp(7).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping

from .netlink import Requests, rtnetlink
from .netlink.sockets import NETLINK_ROUTE

# Of the time, for reading after failed dials.
_SHARE = 0.05


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


class AbsentHosts:
    """The same for one address after the other: what was read is used for a short time.

    Args:
        read: Reads the table.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, str]] = absent_hosts,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._known: Mapping[str, str] = {}
        self._read_at = 0.0
        """When the table may be read again."""

    def includes(self, ip: str) -> bool:
        """Return whether no host answers for an address."""
        began = self._clock()
        if began >= self._read_at:
            self._known = self._read()
            ended = self._clock()
            self._read_at = ended + (ended - began) / _SHARE
        return ip in self._known


ABSENT_HOSTS = AbsentHosts()
"""Those of this process."""


def _name_of(link: int) -> str:
    try:
        return socket.if_indextoname(link)
    except OSError:
        # It was removed meanwhile.
        return f"interface {link}"
