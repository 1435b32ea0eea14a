"""Targets for the kernel's packet filters: conntrack, nf_tables, the legacy tables as text."""

from __future__ import annotations

import contextlib
import socket

from userspace_proxy.errors import SteeringError
from userspace_proxy.filters.chains import ChainTable
from userspace_proxy.filters.rules import read_step
from userspace_proxy.kernel import ctnetlink
from userspace_proxy.kernel.netlink.messages import Message, read_messages
from userspace_proxy.kernel.nf_tables import reader
from userspace_proxy.kernel.nf_tables.writer import (
    NEW_CHAIN,
    NEW_ELEMENT,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
)
from userspace_proxy.steering.iptables.legacy_chains import parse_legacy
from userspace_proxy.steering.iptables.legacy_table import edits_between, parse_table


def check_conntrack(data: bytes) -> None:
    """Check that addresses have the entry's family, and that the deletion request is valid."""
    for version, size in ((4, 6), (6, 18)):
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            for entry in ctnetlink.read_entries(data, version, protocol):
                assert {len(part) for part in entry[:3]} == {size}
                with contextlib.suppress(OSError):
                    assert 0 <= entry.status < 1 << 32
                    assert min(entry.volume) >= 0
                assert len(list(read_messages(ctnetlink.remove_request(entry)))) == 1


def check_nf_tables(data: bytes) -> None:
    """Check that a malformed message raises OSError, and that a rule has at most one verdict."""
    for message in read_messages(data):
        with contextlib.suppress(OSError):
            _check(message)


def _check(message: Message) -> None:
    match message.kind:
        case _ if message.kind == NEW_TABLE:
            reader.read_table(message)
        case _ if message.kind == NEW_CHAIN:
            reader.read_chain(message)
        case _ if message.kind == NEW_SET:
            reader.read_set(message)
        case _ if message.kind == NEW_ELEMENT:
            list(reader.read_elements(message))
            reader.read_counts(message)
        case _ if message.kind == NEW_RULE:
            step = read_step(reader.read_rule(message).expressions())
            assert step is None or step.verdict


def check_legacy_save(data: bytes) -> None:
    """Check that chains written as edits are parsed as the same chains."""
    text = data.decode(errors="surrogateescape")
    try:
        chains = parse_table(text, str)
        parse_legacy(text, ChainTable("ip", "filter", is_legacy=True), 0)
    except SteeringError:
        return
    assert parse_table("\n".join(edits_between({}, chains)), str) == chains
