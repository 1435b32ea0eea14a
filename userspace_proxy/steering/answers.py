"""Catches what endpoints answer to clients whose address a socket of ours has taken.

    socket bound to the client's address ──▶ endpoint
           ▲                                    │ answers to the client, by way of this node
           └── table local ◀── mark ◀── has its address a transparent socket here? ◀──┘

Beside every steering: it neither needs nor knows its rules.

The table is owned by the process: others can't change it, ``nft flush ruleset`` passes it over,
and it goes with the process, as do the sockets that need it. Routes and routing rules know no
owner, nor does a kernel before 5.12: there it is put right again.

Rule 1: what can't be installed is a reason in words, not an error: sockets go on with this
node's address. That goes for IPv6 alone, too, which a node may have switched off.
Rule 2: open connections need it: it goes after the last of them has ended.
Rule 3: routes that an earlier run left, of a proxy that was killed, stay, and what is missing of
them is added; its table, where there still is one, is made anew.
Rule 4: a socket of all addresses catches nothing: another program's transparent listener (TPROXY)
would get what pods send each other.

Source: nf_tables_api.c, NFT_TABLE_F_OWNER.
"""

from __future__ import annotations

import contextlib
import socket

from ..errors import SteeringError
from .answer_routes import MARK, AnswerRoutes
from .names import answers_table_name, label_of_answers_table
from .nf_tables import NftablesError, TableWriter, list_tables
from .nf_tables import expressions as x
from .nf_tables.key_types import INET_PROTO
from .nf_tables.ruleset import labels_by
from .nf_tables.table import Definition, OurTable
from .nf_tables.writer import PREROUTING
from .one_thread import OneThread

# Behind all translation (-100): the kernel looks for IPv6 sockets by what the packet says, and
# what a masquerade changed is put back by then. Marks of others (mangle, -150) are set by then,
# and reverse path filters that mind them (firewalld's, -140) have asked.
PRIORITY = -99
_PROTOCOLS = (socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6)


class Answers:
    """The table, rules and routes of one proxy.

    Its network namespace is that of the thread that calls the first method.

    Args:
        proxy_name: The proxy's ``--service-proxy-name``; empty without one.
    """

    def __init__(self, proxy_name: str = "") -> None:
        self._name = answers_table_name(proxy_name)
        self._kernel: _Kernel | None = None
        self._thread = OneThread("answers")
        self.without_ipv6 = ""
        """Why those of IPv6 aren't caught, as of the last call; empty where they are."""

    async def start(self) -> str:
        """Install all of it; idempotent.

        Returns:
            Why answers can't be caught here; empty when they are.
        """
        try:
            await self._put_right()
        except SteeringError as exc:
            await self._thread.run(self._leave_nothing)
            return exc.message
        return ""

    async def repair(self) -> int:
        """Put right what others undid.

        Returns:
            How many parts were missing or other than ours.

        Raises:
            SteeringError: The kernel refused.
        """
        return await self._put_right()

    async def clean_up(self) -> None:
        """Remove what bears our name, and routes that nobody needs; idempotent, also without start.

        Raises:
            SteeringError: The kernel refused.
        """
        await self._thread.run(self._remove)

    async def close(self) -> None:
        """Let go of sockets, and so of the table; idempotent."""
        if self._thread.has_begun:
            await self._thread.run(self._close)
            self._thread.close()

    async def _put_right(self) -> int:
        count, self.without_ipv6 = await self._thread.run(self._put_kernel_right)
        return count

    def _put_kernel_right(self) -> tuple[int, str]:
        if self._kernel is None:
            self._kernel = _Kernel(self._name)
        return self._kernel.put_right(), self._kernel.without_ipv6

    def _leave_nothing(self) -> None:
        """Remove the part that could be installed, if any."""
        try:
            self._remove()
        except SteeringError:
            # Whoever may not add may not remove: there is nothing.
            return

    def _remove(self) -> None:
        # The kernel removes an owned table with its owner's socket.
        self._close()
        if self._name in list_tables():
            with contextlib.closing(OurTable(self._name)) as table:
                table.remove()
        if not labels():
            with contextlib.closing(AnswerRoutes()) as routes:
                routes.remove()

    def _close(self) -> None:
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            kernel.close()


class _Kernel:
    """What the thread does."""

    def __init__(self, name: str) -> None:
        self._table = OurTable(name)
        self._listed: tuple[Definition, ...] | None = None
        """Our table as the kernel lists it; None before it was written."""
        try:
            self._routes = AnswerRoutes()
        except SteeringError:
            self._table.close()
            raise

    @property
    def without_ipv6(self) -> str:
        return self._routes.without_ipv6

    def put_right(self) -> int:
        # Routes first: a packet that is marked and not delivered would go to the client.
        count = self._routes.put_right()
        if self._listed is not None and not self._table.is_touched():
            return count
        listing = self._table.read()
        if listing is None or listing.definitions != self._listed:
            is_first = self._listed is None
            self._write()
            self._listed = self._table.read_definitions()
            count += not is_first
        return count

    def _write(self) -> None:
        name = self._table.name
        try:
            self._table.write([write_table(name, is_owned=True)])
        except NftablesError:
            # A kernel before 5.12 knows no owners. Whatever else it was it is again.
            self._table.write([write_table(name)])

    def close(self) -> None:
        self._routes.close()
        self._table.close()


def write_table(name: str, *, is_owned: bool = False) -> list[bytes]:
    """Return what makes the table anew, whether it exists or not.

    Args:
        name: The table's.
        is_owned: By the socket that this is sent with.

    ICMP errors are looked up by the packet that they are about: without them a dial in a client's
    name would hear of no refusal, and a connection of no smaller MTU.

    Nobody jumps to ``defragment``. The kernel puts fragments together before all chains as long as
    a rule has ``tproxy``; else it does so only where connections are tracked, and a fragment
    without ports has no socket.
    """
    table = TableWriter(name)
    table.create(is_owned=is_owned)
    table.add_chain("defragment")
    table.add_base_chain("prerouting", "filter", PREROUTING, PRIORITY)
    table.add_rule("defragment", x.UDP + x.tproxy(1))
    table.add_rule("prerouting", x.match(x.SOCKET_WILDCARD, 1) + x.verdict(x.RETURN))
    table.add_rule(
        "prerouting",
        x.one_of(x.L4PROTO, INET_PROTO, *_PROTOCOLS),
        x.match(x.SOCKET_TRANSPARENT, 1) + x.set_bits(x.MARK, MARK),
    )
    return table.messages


def labels() -> list[str]:
    """Return the labels of all proxies whose answers are caught here, sorted.

    Raises:
        SteeringError: There is no right to ask.
    """
    return labels_by(label_of_answers_table)
