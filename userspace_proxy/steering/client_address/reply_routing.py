"""Delivers endpoints' replies to this proxy's sockets that use clients' addresses.

    socket bound to the client's address ──▶ endpoint
           ▲                                    │ replies to the client, through this node
           └── table local ◀── mark ◀── is it for a transparent socket here? ◀──┘

This works in every steering mode, independently of its rules. Replies on a bridge that client and
endpoint share need another table: ``BridgeDelivery``.

The process owns the table: other programs can't change it, ``nft flush ruleset`` skips it, and the
kernel removes it when the process exits, like the sockets that need it. Routes, routing rules, and
before Linux 5.12 also tables, have no owner, so changes to them are repaired.

Rule 1: a part that can't be installed is reported as a reason, not an error: sockets use this
node's address instead. The same applies if only the IPv6 parts can't be installed, because the node
has disabled IPv6.
Rule 2: open connections need all parts, so the parts are removed after the last connection has
ended.
Rule 3: routes that a killed process left are kept, and missing routes are added; a table that it
left is recreated.
Rule 4: sockets on the wildcard address are ignored: otherwise another program's transparent
listener (TPROXY) would receive the packets between pods.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable

from ...errors import SteeringError
from ...kernel.bridge_entries import BridgeEntries
from ...kernel.nf_tables import BRIDGE, INET, TableWriter, list_tables
from ...kernel.nf_tables import expressions as x
from ...kernel.nf_tables.nft_table import NftTable
from ...kernel.nf_tables.owned import OwnedTable, OwnerSockets
from ...kernel.nf_tables.writer import PREROUTING
from ...kernel.offers import FOR_BRIDGES, FOR_REPLIES, LACKS_NOTHING, KernelOffers
from ...kernel.one_thread import InOneThread
from ...policy.locality import FIRST_PORT, LAST_PORT
from ..names import REPLY_TABLES
from .routes import MARK, ReplyRoutes

# A locally administered address; its last five bytes are "uprox".
MAC = b"\x06uprox"
# The chain's priority: after br_netfilter (0), in which the ``inet`` table marks packets.
BRIDGE_PRIORITY = 10


class BridgeDelivery:
    """Delivery of replies to this node's sockets if endpoint and client are on the same bridge.

        endpoint ──▶ bridge ──▶ table inet (br_netfilter): mark, to our MAC ──▶ table bridge
                                                                                     │
        socket bound to the client's address ◀── table local ◀── for this host ◀─────┘

    Without it, a bridge sends such packets directly to the client. In br_netfilter, the rules of
    :class:`ReplyRouting` mark packets for sockets of this node; these rules see the bridge as the
    interface. The ``bridge`` table is evaluated afterwards.

    The MAC is a constant. Each of these bridges has it in its forwarding database as a local
    address, so the rules stay correct when a bridge's own MAC changes. A bridge never learns a
    local address from a pod's frames. Other bridges, such as one to the network of other nodes,
    don't know the MAC, and flood frames for it instead of delivering them.

    All proxies of a node share the entries, and the last proxy removes them.

    Source: net/bridge/br_input.c, br_netfilter_hooks.c; docs/adr/0070.

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
        return self._table.put_right()

    def add_to(self, bridges: Iterable[int]) -> frozenset[int]:
        """Make bridges treat the MAC as local; return the bridges that still exist."""
        return self._entries.put_right(bridges)

    def close(self) -> None:
        """Close the sockets; this removes the table, unless the kernel has no table owners."""
        self._entries.close()
        self._table.close()


def write_bridge_table(table: TableWriter) -> None:
    """Add the chain and the rule to the table.

    The kernel drops packets for another host's MAC before it considers addresses, so the rule sets
    the packet's type, which the kernel determined on arrival, and br_netfilter restored.
    """
    table.add_base_chain("prerouting", "filter", PREROUTING, BRIDGE_PRIORITY)
    ours = x.match(x.MARK, MARK, mask=MARK) + x.match(x.ETHER_DADDR, MAC)
    table.add_rule("prerouting", ours + x.assign(x.PACKET_TYPE, x.THIS_HOST))


def add_diversion(table: TableWriter, chain: str, bridges: Iterable[int]) -> None:
    """Add a chain that sets the destination MAC of marked packets on these bridges to ``MAC``.

    Args:
        table: A table of the ``inet`` family, in which br_netfilter shows packets on bridges.
        bridges: Interface indexes of bridges whose forwarding database has an entry for ``MAC``.
    """
    table.add_chain(chain)
    for number in sorted(bridges):
        here = x.match(x.IN_LINK, number) + x.ETHERNET
        table.add_rule(chain, here + x.assign(x.ETHER_DADDR, MAC))


# The priority is after all translation (-100), because the kernel looks up IPv6 sockets by the
# packet's addresses, and masquerading is undone by then. Other programs have set their marks
# (mangle, -150), and reverse path filters that use marks (firewalld's, -140) have run.
PRIORITY = -99


class ReplyRouting:
    """The reply table, routing rules and routes of one proxy.

    It works in the network namespace of the first thread that calls it.

    Args:
        proxy_name: The proxy's ``--service-proxy-name``; empty without one.
        owners: The sockets that own the tables; None: sockets of this process alone.
    """

    def __init__(
        self,
        proxy_name: str = "",
        owners: OwnerSockets | None = None,
        offers: KernelOffers = LACKS_NOTHING,
    ) -> None:
        name, sockets = REPLY_TABLES.of(proxy_name), owners or OwnerSockets()
        self._kernel = InOneThread("reply-routing", lambda: _Kernel(name, sockets, offers))
        self._offers = offers
        self.without_ipv6 = ""
        """Why IPv6 replies aren't routed, as of the last call; empty if they are."""
        self.bridges: frozenset[int] = frozenset()
        """Interface indexes of the bridges on which delivery works, as of the last call."""
        self.without_bridges = ""
        """Why delivery on bridges failed, as of the last call; empty if it works or is unneeded."""

    async def start(self, bridges: Iterable[int] = ()) -> str:
        """Install all parts and return ""; on failure, remove them and return why. Idempotent.

        Args:
            bridges: See :meth:`repair`; the previous process may have left connections on them.
        """
        try:
            await self.repair(bridges)
        except SteeringError as exc:
            # Without the privilege to add objects, there is nothing to remove, so ignore a failure.
            with contextlib.suppress(SteeringError):
                await self._kernel.do(_Kernel.remove)
            return self._offers.words(FOR_REPLIES) or exc.message
        return ""

    async def repair(self, bridges: Iterable[int] = ()) -> int:
        """Repair changes by other programs; return the number of missing or different objects.

        Args:
            bridges: Interface indexes of the bridges that need delivery to clients on the same
                bridge; :attr:`bridges` contains the bridges on which delivery works.

        Raises:
            SteeringError: The kernel refused to list or change an object.
        """
        wanted = frozenset(bridges)

        def put_right(kernel: _Kernel) -> tuple[int, str, frozenset[int], str]:
            count = kernel.put_right(wanted)
            return count, kernel.without_ipv6, kernel.bridges, kernel.without_bridges

        found = await self._kernel.do(put_right)
        count, self.without_ipv6, self.bridges, self.without_bridges = found
        return count

    async def clean_up(self) -> bool:
        """Remove this proxy's objects, and unused routes; return whether any existed.

        Idempotent; may be called without ``start``.

        Raises:
            SteeringError: The kernel refused to list or remove an object.
        """
        return await self._kernel.do(_Kernel.remove)

    async def close(self) -> None:
        """Close the sockets, which removes the tables if the kernel has owners; idempotent."""
        await self._kernel.close()


class _Kernel:
    """The objects in the kernel, created on demand; not thread-safe."""

    def __init__(self, name: str, owners: OwnerSockets, offers: KernelOffers) -> None:
        self._name = name
        self._owners = owners
        self._offers = offers
        self._parts: tuple[ReplyRoutes, OwnedTable] | None = None
        self._delivery: BridgeDelivery | None = None
        self.without_ipv6 = ""
        self.bridges: frozenset[int] = frozenset()
        self.without_bridges = ""
        self._diverted: frozenset[int] = frozenset()
        """The bridges that the table's rules name."""

    def put_right(self, bridges: frozenset[int]) -> int:
        """Repair differences; return the number of missing or different objects."""
        if self._parts is None:
            with contextlib.ExitStack() as opened:
                table = OwnedTable(self._name, self._write, owners=self._owners)
                opened.callback(table.close)
                self._parts = ReplyRoutes(), table
                opened.pop_all()
        routes, table = self._parts
        # Add routes first: without them, a marked packet would be sent to the client.
        count = routes.put_right()
        self.without_ipv6 = routes.without_ipv6
        if bridges or self._delivery is not None:
            count += self._deliver(bridges)
            if not self.without_bridges and self._diverted != self.bridges:
                self._diverted = self.bridges
                table.rewrite()
        return count + table.put_right()

    def remove(self) -> bool:
        """Remove the tables, and objects that no other proxy uses; return whether any existed."""
        self.close()
        was_there = False
        for family in (INET, BRIDGE):
            if self._name in list_tables(family):
                with contextlib.closing(NftTable(self._name, family)) as table:
                    table.remove()
                was_there = True
        if not REPLY_TABLES.labels_here():
            with contextlib.closing(BridgeEntries(MAC)) as entries:
                entries.remove()
            with contextlib.closing(ReplyRoutes()) as routes:
                was_there |= routes.remove()
        return was_there

    def close(self) -> None:
        """Close the sockets; idempotent."""
        for part in (*(self._parts or ()), self._delivery):
            if part is not None:
                part.close()
        self._parts = self._delivery = None
        self.bridges = self._diverted = frozenset()

    def _write(self, table: TableWriter) -> None:
        write_table(table, self._diverted)

    def _deliver(self, bridges: frozenset[int]) -> int:
        """Enable delivery, or set ``without_bridges``; return 1 if the table was repaired."""
        count, self.bridges = 0, frozenset()
        try:
            if self._delivery is None:
                self._delivery = BridgeDelivery(self._name, self._owners)
            count = self._delivery.put_right()
            self.bridges = self._delivery.add_to(bridges)
        except SteeringError as exc:
            self.without_bridges = self._offers.words(FOR_BRIDGES) or exc.message
        else:
            self.without_bridges = ""
        return count


def write_table(table: TableWriter, bridges: Iterable[int] = ()) -> None:
    """Add the chains and rules to the table.

    Ports are checked first, which saves other packets the search for a socket; most of a node's
    packets pass only the first rule. ICMP errors have no ports; the kernel finds their socket by
    the packet that they quote. Without a rule for them, a dial from a client's address wouldn't see
    refusals, and a connection wouldn't learn of a smaller MTU.

    No rule jumps to ``defragment``: while any rule contains ``tproxy``, the kernel reassembles
    fragments before all chains. Otherwise it does so only where connections are tracked, and a
    fragment without ports matches no socket.

    Args:
        table: An empty table.
        bridges: Interface indexes of the bridges on which replies are diverted to this node.
    """
    table.add_chain("defragment")
    table.add_rule("defragment", x.UDP + x.tproxy(1))
    add_diversion(table, "divert", bridges)
    table.add_base_chain("prerouting", "filter", PREROUTING, PRIORITY)
    marked = (
        x.match(x.SOCKET_TRANSPARENT, 1)
        # This also excludes sockets in TIME_WAIT, so that clients can reuse their ports.
        + x.match(x.SOCKET_WILDCARD, 0)
        + x.set_bits(x.MARK, MARK)
        + x.verdict(x.GOTO, "divert")
    )
    others = x.TCP + x.match(x.DPORT, FIRST_PORT, op=x.LESS)
    table.add_rule("prerouting", others + x.verdict(x.ACCEPT))
    protocols = x.one_of(x.L4PROTO, x.INET_PROTO, socket.IPPROTO_TCP, socket.IPPROTO_UDP)
    ports = x.within(x.DPORT, FIRST_PORT, LAST_PORT)
    table.add_rule("prerouting", protocols, ports + marked)
    errors = x.one_of(x.L4PROTO, x.INET_PROTO, socket.IPPROTO_ICMP, socket.IPPROTO_ICMPV6)
    table.add_rule("prerouting", errors, marked)
