from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from itertools import chain, product

import pytest

from userspace_proxy.kernel import nft_probes
from userspace_proxy.kernel.netlink.messages import (
    number_in,
    read_all,
    read_attributes,
    read_messages,
    text_in,
)
from userspace_proxy.kernel.nf_tables import BRIDGE, TableWriter, writer
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nft_probes import PROBES
from userspace_proxy.kernel.trials import try_nftables
from userspace_proxy.model import IPFamily, SocketAddress
from userspace_proxy.steering.base import Affinity
from userspace_proxy.steering.client_address.reply_routing import write_bridge_table
from userspace_proxy.steering.client_address.reply_routing import write_table as write_replies
from userspace_proxy.steering.held_tables import Untracked, _fill_hold
from userspace_proxy.steering.local.guard_table import write_guard
from userspace_proxy.steering.nftables import kernel_rules, rules
from userspace_proxy.steering.nftables.choosers import Chooser, ChooserChain, write_chooser

_FAMILY_BYTES = 4
# The attributes that select the data or the action of an expression, such as NFTA_META_KEY.
_SELECTORS = {
    "meta": (2,), "ct": (2, 3), "socket": (1,), "fib": (2, 3), "payload": (2,), "exthdr": (2,),
    "reject": (1,), "nat": (1, 2), "redir": (), "masq": (3,), "lookup": (5,), "dynset": (3,),
    "numgen": (3,), "hash": (7,), "cmp": (2,), "tproxy": (1,),
}  # fmt: skip


def kinds(messages: Sequence[bytes]) -> set[tuple[object, ...]]:
    """Return the kinds of tables, chains, sets and expressions in messages."""
    return {
        kind
        for one in read_messages(b"".join(messages))
        for kind in _kinds_of(one.kind, one.body[0], read_all(one.body, _FAMILY_BYTES))
    }


def _kinds_of(kind: int, family: int, found: dict[int, bytes]) -> Iterator[tuple[object, ...]]:
    if kind == writer.NEW_TABLE:
        yield "table", family, number_in(found, 2) if 2 in found else 0
    elif kind == writer.NEW_CHAIN and writer.CHAIN_TYPE in found:
        hook = number_in(read_all(found[writer.CHAIN_HOOK]), 1)
        yield "chain", family, text_in(found, writer.CHAIN_TYPE), hook
    elif kind == writer.NEW_SET:
        is_joined = number_in(found, 4) >= 1 << 6
        yield "set", number_in(found, writer.SET_FLAGS), is_joined, 17 in found, 6 in found
    elif kind == writer.NEW_RULE:
        for _, one in read_attributes(found[writer.RULE_EXPRESSIONS]):
            parts = read_all(one)
            name = text_in(parts, x.EXPRESSION_NAME)
            data = read_all(parts.get(x.EXPRESSION_DATA, b""))
            selected = tuple(data.get(key) for key in _SELECTORS.get(name, ()))
            yield "expression", name, selected


def written() -> Iterator[list[bytes]]:
    """Yield the messages of all tables that this proxy writes."""
    yield rules.write_table(rules.Shape("t", refuse_port=1))
    yield rules.write_table(rules.Shape("t", refuse_port=1, to_ip="10.0.0.1"))
    yield kernel_rules.write_table("t", has_counters=True)
    ends = {IPFamily.IPV4: SocketAddress("10.0.0.1", 1), IPFamily.IPV6: SocketAddress("fd00::1", 1)}
    inside = {IPFamily.IPV4: ("10.0.0.0/8",), IPFamily.IPV6: ("fd00::/8",)}
    for family, affinity, by_client in product(IPFamily, (None, Affinity("a", 1)), (False, True)):
        pins = {ends[family]: 7} if affinity else {}
        counts = ((inside[family], 1), (None, 1))
        chooser = Chooser(
            family, counts, affinity, (ends[family],) * 2 if affinity else (), by_client
        )
        yield write_chooser("t", chooser, ChooserChain(1, pins))
    yield write_guard("t", ("10.0.0.0/8", "fd00::/8"))
    for fill in (_fill_hold, Untracked([1])._fill, lambda table: write_replies(table, [1])):
        table = TableWriter("t")
        table.create(is_owned=True)
        fill(table)
        yield table.messages
    table = TableWriter("t", BRIDGE)
    write_bridge_table(table)
    yield table.messages


def test_every_written_expression_is_covered_by_a_probe():
    probed = kinds([*chain.from_iterable(probe() for probe in PROBES.values())])
    assert kinds([*chain.from_iterable(written())]) - probed == set()


@pytest.mark.parametrize("part", PROBES)
def test_the_kernel_accepts_each_probe_alone(node, part):
    assert try_nftables(PROBES[part]()) == 0
    assert node.run("nft list tables") == ""


def test_a_probe_of_an_unknown_expression_or_family_fails(node, monkeypatch):
    monkeypatch.setattr(x, "remember", lambda *_, **__: x.expression("no_such_expression"))
    assert try_nftables(PROBES["sets"]()) == errno.ENOENT
    unknown = nft_probes._table(nft_probes._bridge, 99)
    assert try_nftables(unknown) == errno.EOPNOTSUPP
