"""Adds entries to bridges' forwarding databases that mark one MAC address as local.

A bridge delivers frames for such an address to this node, and never learns it from a port.

Rule 1: every call blocks. Make all calls in one thread: its network namespace applies.

Source: net/bridge/br_fdb.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable

from ..errors import SteeringError
from .netlink import Requests, explained, rtnetlink
from .netlink.messages import CREATE, REPLACE
from .netlink.sockets import NETLINK_ROUTE

_GONE = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)


class BridgeEntries:
    """One MAC address's entries in any number of bridges.

    The constructor and the methods raise a SteeringError if the kernel refuses a request.
    """

    def __init__(self, mac: bytes) -> None:
        self._mac = mac
        with explained("open a netlink socket"):
            self._requests = Requests.open(NETLINK_ROUTE)

    def put_right(self, bridges: Iterable[int]) -> frozenset[int]:
        """Write the local entries, even if a bridge has learned the MAC address from a pod.

        Returns: The interface indexes of the bridges that still exist.
        """
        wanted = sorted(bridges)
        # Write all entries: the kernel sends no event for an entry that doesn't change.
        refused = self._change(rtnetlink.NEW_NEIGHBOUR, CREATE | REPLACE, wanted)
        missing = set()
        for number, code in refused.items():
            if code == errno.ENODEV:
                missing.add(number)
            else:
                hint = "grant NET_ADMIN" if code in (errno.EPERM, errno.EACCES) else ""
                what = f"cannot add a bridge's forwarding entry: {os.strerror(code)}"
                raise SteeringError(what, hint=hint)
        return frozenset(wanted) - missing

    def remove(self) -> None:
        """Remove the entries of all bridges. Idempotent."""
        with explained("list interfaces"):
            messages = self._requests.list_all(rtnetlink.list_links())
        links = [rtnetlink.read_link(message).link for message in messages]
        bridges = [link.number for link in links if link.kind == "bridge"]
        for code in self._change(rtnetlink.DEL_NEIGHBOUR, 0, bridges).values():
            if code not in _GONE:
                what = f"cannot remove a bridge's forwarding entry: {os.strerror(code)}"
                raise SteeringError(what)

    def close(self) -> None:
        """Close the socket; the entries stay. Idempotent."""
        self._requests.close()

    def _change(self, kind: int, flags: int, bridges: Collection[int]) -> dict[int, int]:
        """Change the entries; return the errno for each bridge whose change was refused."""
        numbers = list(bridges)
        requests = [rtnetlink.write_bridge_entry(kind, flags, n, self._mac) for n in numbers]
        with explained("change bridges"):
            refused = self._requests.change(requests)
        return {numbers[index]: code for index, code in refused}
