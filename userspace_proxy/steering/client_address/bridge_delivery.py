"""Delivers replies of endpoints to clients on the same bridge to this node.

    endpoint ──▶ port of the bridge ──▶ table inet (br_netfilter): mark ──▶ table bridge: to our MAC
                                                                              │
    socket bound to the client's address ◀── table local ◀── bridge ◀─────────┘

Without the table, a bridge sends such packets straight to the client. The table runs after
br_netfilter, so the rules of ``reply_routing`` have marked the packets that have a socket here.

The MAC is one constant, which each bridge has in its forwarding database as its own. So one rule is
correct for all bridges, and it stays correct when a bridge's own MAC changes. A bridge never learns
an address that is its own from a pod's frames.

Rule 1: every call blocks; all are made in one thread, in its network namespace.
Rule 2: the table is owned by the process, as that of ``reply_routing``; the entries are the same
for all proxies of a node: the last one removes them.

Source: net/bridge/br_input.c, br_netfilter_hooks.c; docs/adr/0017.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable

from ...errors import SteeringError
from ...kernel.netlink import Requests, explained, rtnetlink
from ...kernel.netlink.messages import CREATE, REPLACE
from ...kernel.netlink.sockets import NETLINK_ROUTE
from ...kernel.nf_tables import BRIDGE, NftablesError, TableWriter
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.owned import OwnedTable, OwnerSockets
from ...kernel.nf_tables.writer import PREROUTING
from .routes import MARK

# Locally administered; the rest is "uprox".
MAC = b"\x06uprox"
# After br_netfilter (0), in which the table inet marks packets.
PRIORITY = 10
NO_BRIDGE_FAMILY = "this kernel has no nftables for bridges (CONFIG_NF_TABLES_BRIDGE)"
_NO_BRIDGE_FAMILY = (errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT)
_GONE = (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP)


class BridgeDelivery:
    """The table and the forwarding entries of one proxy.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied.
    """

    def __init__(self, name: str, owners: OwnerSockets | None = None) -> None:
        self._entries = BridgeEntries()
        try:
            self._table = OwnedTable(name, write_bridge_table, BRIDGE, owners=owners)
        except SteeringError:
            self._entries.close()
            raise

    def put_right(self) -> bool:
        """Write the table, as :meth:`OwnedTable.put_right`."""
        try:
            return self._table.put_right()
        except NftablesError as exc:
            if exc.code in _NO_BRIDGE_FAMILY:
                raise SteeringError(NO_BRIDGE_FAMILY, hint="modprobe nf_tables") from exc
            raise

    def add_to(self, bridges: Iterable[int]) -> frozenset[int]:
        """Make bridges accept the MAC as their own; see :meth:`BridgeEntries.put_right`."""
        return self._entries.put_right(bridges)

    def close(self) -> None:
        """Close the sockets, which removes the table unless the kernel lacks owners."""
        self._entries.close()
        self._table.close()


def write_bridge_table(table: TableWriter) -> None:
    """Add the chain and the rule to the table.

    The kernel drops packets for another host's MAC before it considers addresses, so the packet's
    type is set, too: it was determined when the packet arrived.
    """
    table.add_base_chain("prerouting", "filter", PREROUTING, PRIORITY)
    ours = x.match(x.MARK, MARK, mask=MARK)
    to_us = x.assign(x.ETHER_DADDR, MAC) + x.assign(x.PACKET_TYPE, x.THIS_HOST)
    table.add_rule("prerouting", ours + to_us)


class BridgeEntries:
    """The MAC's entries in the forwarding databases of bridges."""

    def __init__(self) -> None:
        with explained("open a netlink socket"):
            self._requests = Requests.open(NETLINK_ROUTE)

    def put_right(self, bridges: Iterable[int]) -> frozenset[int]:
        """Make the entries this node's own, also where a bridge has learned the MAC from a pod.

        Returns:
            The bridges without those that were removed meanwhile.
        """
        wanted = sorted(bridges)
        # A correct entry is not changed, and causes no event.
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
        """Remove the entries of all bridges; idempotent."""
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
        """Return the error number for each bridge whose change was refused."""
        numbers = list(bridges)
        requests = [rtnetlink.write_bridge_entry(kind, flags, n, MAC) for n in numbers]
        with explained("change bridges"):
            refused = self._requests.change(requests)
        return {numbers[index]: code for index, code in refused}
