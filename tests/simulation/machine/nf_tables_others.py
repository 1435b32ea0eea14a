"""Another program that changes nftables, like ``nft``: each call is one transaction."""

from __future__ import annotations

import socket
import struct

from . import netlink_wire as wire
from .netlink_kernel import NETFILTER, NetlinkKernel
from .netlink_sockets import NetlinkSocket
from .nf_tables import NfTables
from .nf_tables_batch import (
    DELETE_CHAIN,
    DELETE_ELEMENT,
    DELETE_RULE,
    DELETE_SET,
    DELETE_TABLE,
    NEW_CHAIN,
    NEW_ELEMENT,
    NEW_RULE,
    NEW_TABLE,
)
from .nf_tables_state import DROP, INET, Element, Table

_BEGIN, _END = 0x10, 0x11


class Another:
    """A program that sends transactions; the kernel doesn't send events to its socket."""

    def __init__(self, tables: NfTables, kernel: NetlinkKernel) -> None:
        self._tables = tables
        self._kernel = kernel
        self._sock = NetlinkSocket(kernel, NETFILTER)
        self._number = 0
        self.last_chain = 0
        """The highest ``order`` of a chain at the last :meth:`note_chains`."""

    def note_chains(self) -> None:
        """Record the existing chains."""
        tables = self._tables.ruleset.tables.values()
        orders = [chain.order for table in tables for chain in table.chains.values()]
        self.last_chain = max(orders, default=0)

    @property
    def port(self) -> int:
        """The port ID of its socket."""
        return self._sock.port

    def flush_ruleset(self) -> int:
        """Delete all tables without an owner; return an error number, or 0."""
        return self.commit(_request(DELETE_TABLE, 0, 0))

    def delete_table(self, table: Table) -> int:
        return self.commit(self._about(DELETE_TABLE, table))

    def add_table(self, name: str, hook: int, priority: int, kind: str, *rules: bytes) -> int:
        """Add a table with one chain and its rules; ``rules`` are packed expressions."""
        at = wire.nest(4, wire.be32(1, hook), wire.be32(2, priority))
        place = wire.string(1, name)
        return self.commit(
            _request(NEW_TABLE, wire.F_CREATE, INET, place),
            _request(
                NEW_CHAIN, wire.F_CREATE, INET, place, wire.string(3, "all"), at,
                wire.string(7, kind),
            ),
            *(
                _request(
                    NEW_RULE, wire.F_CREATE | wire.F_APPEND, INET, place, wire.string(2, "all"),
                    wire.nest(4, rule),
                )
                for rule in rules
            ),
        )  # fmt: skip

    def delete_element(self, table: Table, name: str, element: Element) -> int:
        return self.commit(self._element(DELETE_ELEMENT, table, name, element))

    def change_element(self, table: Table, name: str, element: Element, value: bytes) -> int:
        """Change the value of a map element."""
        other = Element(element.key, value)
        return self.commit(
            self._element(DELETE_ELEMENT, table, name, element),
            self._element(NEW_ELEMENT, table, name, other),
        )

    def add_element(self, table: Table, name: str, element: Element) -> int:
        return self.commit(self._element(NEW_ELEMENT, table, name, element))

    def flush_set(self, table: Table, name: str) -> int:
        return self.commit(self._about(DELETE_ELEMENT, table, wire.string(2, name)))

    def delete_set(self, table: Table, name: str) -> int:
        return self.commit(self._about(DELETE_SET, table, wire.string(2, name)))

    def flush_chain(self, table: Table, chain: str) -> int:
        return self.commit(self._about(DELETE_RULE, table, wire.string(2, chain)))

    def delete_chain(self, table: Table, chain: str) -> int:
        return self.commit(self._about(DELETE_CHAIN, table, wire.string(3, chain)))

    def delete_rule(self, table: Table, chain: str, handle: int) -> int:
        place = wire.string(2, chain) + wire.be64(3, handle)
        return self.commit(self._about(DELETE_RULE, table, place))

    def insert_rule(self, table: Table, chain: str, *, first: bool = True) -> int:
        """Add a rule that drops all packets, before or after all other rules of a chain."""
        rule = wire.string(2, chain) + wire.nest(4, drop())
        flags = wire.F_CREATE | (0 if first else wire.F_APPEND)
        return self.commit(self._about(NEW_RULE, table, rule, flags))

    def drop_by_policy(self, table: Table, chain: str) -> int:
        """Set the policy of a chain to drop."""
        return self.commit(
            self._about(NEW_CHAIN, table, wire.string(3, chain) + wire.be32(5, DROP))
        )

    def commit(self, *messages: bytes) -> int:
        """Send one transaction; return an error number, or 0."""
        self._number += 1
        frame = wire.netfilter(0, 10)
        begin = wire.message(_BEGIN, wire.F_REQUEST, self._number, 0, frame)
        end = wire.message(_END, wire.F_REQUEST, self._number, 0, frame)
        # Faults affect only the product's transactions.
        faults, self._tables.faults = self._tables.faults, []
        slow, self._kernel.slow_answers = self._kernel.slow_answers, []
        self._tables.receive(self._sock, b"".join((begin, *messages, end)))
        self._tables.faults, self._kernel.slow_answers = faults, slow
        code = 0
        while self._sock.is_readable():
            data = self._sock.take()
            for one in wire.requests(data):
                code = code or -int(struct.unpack_from("=i", one.body)[0])
        return code

    def _about(self, kind: int, table: Table, body: bytes = b"", flags: int = 0) -> bytes:
        return _request(
            kind, flags or wire.F_CREATE, table.family, wire.string(1, table.name), body
        )

    def _element(self, kind: int, table: Table, name: str, element: Element) -> bytes:
        parts = [wire.nest(1, wire.attribute(1, element.key))]
        if element.verdict is not None and kind == NEW_ELEMENT:
            verdict = wire.be32(1, element.verdict.code) + wire.string(2, element.verdict.chain)
            parts.append(wire.nest(2, wire.nest(2, verdict)))
        elif element.value and kind == NEW_ELEMENT:
            parts.append(wire.nest(2, wire.attribute(1, element.value)))
        packed = wire.nest(3, wire.nest(1, *parts))
        return self._about(kind, table, wire.string(2, name) + packed)


def _request(kind: int, flags: int, family: int, *parts: bytes) -> bytes:
    return wire.message(
        kind, wire.F_REQUEST | flags, 0, 0, wire.netfilter(family) + b"".join(parts)
    )


def expression(name: str, *attributes: bytes) -> bytes:
    """Return an expression of a rule."""
    return wire.nest(1, wire.string(1, name), wire.nest(2, *attributes))


def drop() -> bytes:
    """Return the expression that drops a packet."""
    verdict = wire.nest(2, wire.nest(2, wire.be32(1, DROP)))
    return expression("immediate", wire.be32(1, 0), verdict)


def translate_all(ip: str, port: int, protocol: int = socket.IPPROTO_TCP) -> bytes:
    """Return expressions that give all IPv4 packets of a protocol the same new destination."""
    family = wire.nest(3, wire.attribute(1, bytes([socket.AF_INET])))
    value = wire.nest(3, wire.attribute(1, bytes([protocol])))
    return (
        expression("meta", wire.be32(2, 15), wire.be32(1, 1))
        + expression("cmp", wire.be32(1, 1), wire.be32(2, 0), family)
        + expression("meta", wire.be32(2, 16), wire.be32(1, 1))
        + expression("cmp", wire.be32(1, 1), wire.be32(2, 0), value)
        + _put(1, socket.inet_aton(ip))
        + _put(2, port.to_bytes(2, "big"))
        + expression(
            "nat", wire.be32(1, 1), wire.be32(2, 2), wire.be32(3, 1), wire.be32(5, 2),
            wire.be32(7, 2),
        )
    )  # fmt: skip


def _put(register: int, value: bytes) -> bytes:
    return expression("immediate", wire.be32(1, register), wire.nest(2, wire.attribute(1, value)))
