"""Delivers replies of endpoints to clients on the same bridge to this node.

    endpoint ──▶ port of the bridge ──▶ table inet (br_netfilter): mark, to our MAC ──▶ table bridge
                                                                                            │
    socket bound to the client's address ◀── table local ◀── bridge ◀── for this host ◀─────┘

Without them, a bridge sends such packets straight to the client. In br_netfilter the rules of
``reply_routing`` mark the packets that have a socket here, and see the bridge as their interface;
the table bridge runs after it.

The MAC is one constant, which each of these bridges has in its forwarding database as its own. So
the rules stay correct when a bridge's own MAC changes. A bridge never learns an address that is its
own from a pod's frames.

Rule 1: every call blocks; all are made in one thread, in its network namespace.
Rule 2: the table is owned by the process, as that of ``reply_routing``; the entries are the same
for all proxies of a node: the last one removes them.
Rule 3: only bridges that have the entry get frames for the MAC; others, such as one to the network
of other nodes, don't know it, and flood such frames instead of delivering them.

Source: net/bridge/br_input.c, br_netfilter_hooks.c; docs/adr/0070.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...errors import SteeringError
from ...kernel.bridge_entries import BridgeEntries
from ...kernel.nf_tables import BRIDGE, TableWriter
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.owned import OwnedTable, OwnerSockets
from ...kernel.nf_tables.writer import PREROUTING
from .routes import MARK

# Locally administered; the rest is "uprox".
MAC = b"\x06uprox"
# After br_netfilter (0), in which the table inet marks packets.
PRIORITY = 10


class BridgeDelivery:
    """The table and the forwarding entries of one proxy.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied.
    """

    def __init__(self, name: str, owners: OwnerSockets | None = None) -> None:
        self._entries = BridgeEntries(MAC)
        try:
            self._table = OwnedTable(name, write_bridge_table, BRIDGE, owners=owners)
        except SteeringError:
            self._entries.close()
            raise

    def put_right(self) -> bool:
        """Write the table, as :meth:`OwnedTable.put_right`."""
        return self._table.put_right()

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
    type is set, too: it was determined when the packet arrived, and br_netfilter restores it.
    """
    table.add_base_chain("prerouting", "filter", PREROUTING, PRIORITY)
    ours = x.match(x.MARK, MARK, mask=MARK) + x.match(x.ETHER_DADDR, MAC)
    table.add_rule("prerouting", ours + x.assign(x.PACKET_TYPE, x.THIS_HOST))


def add_diversion(table: TableWriter, chain: str, bridges: Iterable[int]) -> None:
    """Add a chain that gives a marked packet on one of these bridges the MAC.

    Args:
        table: Of the family inet, in which br_netfilter shows packets on bridges.
        bridges: Those that have the entry.
    """
    table.add_chain(chain)
    for number in sorted(bridges):
        here = x.match(x.IN_LINK, number) + x.ETHERNET
        table.add_rule(chain, here + x.assign(x.ETHER_DADDR, MAC))
