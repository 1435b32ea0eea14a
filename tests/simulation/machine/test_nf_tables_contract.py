"""Behaviour of nf_tables that steering relies on, in the simulated and the real kernel."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from userspace_proxy.kernel.classic_bpf import SO_ATTACH_FILTER, attach
from userspace_proxy.kernel.ctnetlink import (
    EntryFilter,
    list_request,
    read_entries,
    remove_request,
)
from userspace_proxy.kernel.nf_tables import INET, Ruleset, TableWriter
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.kernel.nf_tables import writer as w
from userspace_proxy.kernel.nf_tables.nft_table import NftTable, _all_but_changes_of
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import Affinity, EndpointChoice, KernelTarget
from userspace_proxy.steering.nftables import kernel_rules, rules
from userspace_proxy.steering.nftables.choosers import write_chooser

from . import conntrack_entries as entries
from . import netlink_wire as wire
from .conntrack_entries import Flow, Place
from .contract import Contract, RealKernel, SimulatedKernel, tree
from .nf_tables_batch import (
    GET_ELEMENT,
    GET_GENERATION,
    GET_RULE,
    GET_SET,
    GET_TABLE,
    NEW_GENERATION,
)

KEY = x.joined(x.INET_PROTO, x.INET_SERVICE)
WEB, DNS = bytes([6, 0, 0, 0, 0, 80, 0, 0]), bytes([17, 0, 0, 0, 0, 53, 0, 0])
PORT, OTHER_PORT = (36001).to_bytes(2, "big"), (36002).to_bytes(2, "big")
NAME = wire.string(1, "ours")


@pytest.fixture(params=[SimulatedKernel, RealKernel], ids=["simulated", "real"])
def kernel(request: pytest.FixtureRequest) -> Iterator[Contract]:
    kernel: Contract = request.param()
    yield kernel
    kernel.close()


def table() -> TableWriter:
    """Return a writer for the table of these tests."""
    return TableWriter("ours")


def small_table() -> list[bytes]:
    made = table()
    made.create()
    made.add_map("ports", KEY, x.INET_SERVICE)
    made.add_set("known", KEY)
    made.add_verdict_map("ways", KEY)
    made.add_base_chain("in", "filter", w.INPUT, -10)
    made.add_base_chain("pre", "nat", w.PREROUTING, -110)
    made.add_chain("way")
    made.add_rule("in", x.in_set((x.L4PROTO, x.DPORT), "known") + x.verdict(x.JUMP, "way"))
    made.add_elements("ports", {WEB: PORT})
    return made.messages


def changes(**kwargs: Any) -> dict[str, Any]:
    """Return the messages of transactions that change the table, by name."""

    def of(change: Any) -> list[bytes]:
        writer = table()
        change(writer)
        return writer.messages

    return {name: of(change) for name, change in kwargs.items()}


CHANGES = changes(
    same_element=lambda t: t.add_elements("ports", {WEB: PORT}),
    other_value=lambda t: t.add_elements("ports", {WEB: OTHER_PORT}),
    missing_element=lambda t: t.delete_elements("ports", [DNS]),
    replaced=lambda t: t.change_elements(
        ("ports",), {("ports", WEB, PORT)}, {("ports", WEB, OTHER_PORT)}
    ),
    short_key=lambda t: t.add_elements("ports", {WEB[:4]: PORT}),
    value_of_a_set=lambda t: t.add_elements("known", {WEB: PORT}),
    no_value=lambda t: t.add_elements("ports", {DNS: b""}),
    no_chain=lambda t: t.add_elements("ways", {WEB: w.goto_chain("gone")}),
    base_chain=lambda t: t.add_elements("ways", {WEB: w.goto_chain("in")}),
    way=lambda t: t.add_elements("ways", {WEB: w.goto_chain("way")}),
    used_chain=lambda t: t.delete_chain("way"),
    missing_chain=lambda t: t.delete_chain("gone"),
    rule_to_no_chain=lambda t: t.add_rule("in", x.verdict(x.GOTO, "gone")),
    rule_of_no_chain=lambda t: t.add_rule("gone", x.verdict(x.ACCEPT)),
    rule_of_no_set=lambda t: t.add_rule("in", x.in_set((x.L4PROTO,), "gone")),
    redirect_in_a_filter=lambda t: t.add_rule(
        "in", x.look_up((x.L4PROTO, x.DPORT), "ports") + x.redirect()
    ),
    redirect=lambda t: t.add_rule(
        "pre", x.look_up((x.L4PROTO, x.DPORT), "ports") + x.redirect()
    ),
    value_in_a_plain_set=lambda t: t.add_rule("in", x.look_up((x.L4PROTO, x.DPORT), "known")),
    early_nat=lambda t: t.add_base_chain("early", "nat", w.PREROUTING, -300),
    no_kind=lambda t: t.add_base_chain("odd", "odd", w.PREROUTING, 0),
    loop=lambda t: t.add_rule("way", x.verdict(x.JUMP, "way")),
    flush=lambda t: t.flush_chain("in"),
    flush_of_no_chain=lambda t: t.flush_chain("gone"),
    dynamic=lambda t: t.add_rule("in", x.load_slots((x.L4PROTO, x.DPORT), 0)
                                 + x.remember("known", 0, 5)),
)  # fmt: skip
SUPPOSED = {
    "same_element": 0,
    "other_value": errno.EEXIST,
    "missing_element": errno.ENOENT,
    "replaced": 0,
    "short_key": errno.EINVAL,
    "value_of_a_set": errno.EINVAL,
    "no_value": errno.EINVAL,
    "no_chain": errno.ENOENT,
    "base_chain": errno.EOPNOTSUPP,
    "way": 0,
    "used_chain": errno.EBUSY,
    "missing_chain": errno.ENOENT,
    "rule_to_no_chain": errno.ENOENT,
    "rule_of_no_chain": errno.ENOENT,
    "rule_of_no_set": errno.ENOENT,
    "redirect_in_a_filter": errno.EOPNOTSUPP,
    "redirect": 0,
    "value_in_a_plain_set": errno.EINVAL,
    "early_nat": errno.EOPNOTSUPP,
    "no_kind": errno.ENOENT,
    "loop": errno.EMLINK,
    "flush": 0,
    "flush_of_no_chain": errno.ENOENT,
    "dynamic": errno.EOPNOTSUPP,
}


@pytest.mark.parametrize("name", SUPPOSED)
def test_a_transaction_is_accepted_or_rejected_as_a_whole(kernel: Contract, name: str) -> None:
    program = kernel.program()
    assert program.commit(*small_table()) == 0
    before = listing_of(kernel)
    code = program.commit(*CHANGES[name])
    assert code == SUPPOSED[name]
    assert (listing_of(kernel) == before) >= bool(code), "all of it, or nothing"


def listing_of(kernel: Contract) -> Any:
    with kernel.inside(), Ruleset() as ruleset:
        sets = ruleset.sets(INET, "ours")
        found = {one.name: dict(ruleset.elements(INET, "ours", one.name)) for one in sets}
        return ruleset.chains(INET), ruleset.rules(INET, "ours"), sets, found


def test_a_transaction_without_a_batch_end_is_not_applied(kernel: Contract) -> None:
    program = kernel.program()
    assert program.commit(*small_table(), with_end=False) == 0
    assert program.list(GET_TABLE, wire.netfilter(INET)).items == []


def generation(program: Any) -> int:
    answer = program.ask(GET_GENERATION, wire.netfilter(0))
    assert answer.kind == NEW_GENERATION
    return wire.number(wire.table_of(answer.body, 4)[1])


def test_only_a_transaction_with_changes_increments_the_generation(kernel: Contract) -> None:
    program = kernel.program()
    first = generation(program)
    program.commit(*small_table())
    program.commit(*CHANGES["same_element"])
    program.commit(*CHANGES["other_value"])
    assert generation(program) == first + 1
    program.commit(*CHANGES["replaced"])
    assert generation(program) == first + 2


def test_events_end_with_a_generation_and_are_filtered_by_sender(kernel: Contract) -> None:
    program, other, watcher = kernel.program(), kernel.program(), kernel.program()
    watcher.sock.setsockopt(270, 1, 7)
    program.commit(*small_table())
    found = watcher.drain()
    assert found[-1].kind == NEW_GENERATION
    assert {one.kind & 0xFF for one in found[:-1]} >= {0, 2, 3, 6, 9, 12}
    assert {wire.name(wire.table_of(one.body, 4).get(1)) for one in found[:-1]} == {"ours"}
    attach(watcher.sock, SO_ATTACH_FILTER, _all_but_changes_of(program.sock.getsockname()[0]))
    program.commit(*CHANGES["replaced"])
    assert [one.kind for one in watcher.drain()] == [NEW_GENERATION]
    other.commit(*CHANGES["flush"])
    assert next(iter(watcher.drain())).kind & 0xFF == 8


def test_a_listing_is_interrupted_by_a_transaction(kernel: Contract) -> None:
    program, other = kernel.program(), kernel.program()
    program.commit(*small_table())
    for _ in range(4):
        many = table()
        for _ in range(250):
            many.add_rule("way", x.TCP + x.match(x.DPORT, 80) + x.verdict(x.ACCEPT))
        assert program.commit(*many.messages) == 0
    place = wire.netfilter(INET) + NAME
    program.begin_listing(GET_RULE, place)
    assert not program.read_listing().is_interrupted
    program.begin_listing(GET_RULE, place)
    assert program.read_listing(lambda: other.commit(*CHANGES["replaced"])).is_interrupted


def test_an_interrupted_element_listing_is_not_flagged(kernel: Contract) -> None:
    program, other = kernel.program(), kernel.program()
    program.commit(*small_table())
    many = table()
    keys = (bytes([6, 0, 0, 0, *n.to_bytes(2, "big"), 0, 0]) for n in range(1, 4000))
    many.add_elements("known", dict.fromkeys(keys, b""))
    assert program.commit(*many.messages) == 0
    program.begin_listing(GET_ELEMENT, wire.netfilter(INET) + NAME + wire.string(2, "known"))
    found = program.read_listing(lambda: other.commit(*CHANGES["replaced"]))
    assert not found.is_interrupted


def test_a_second_listing_on_the_same_socket_fails_with_ebusy(kernel: Contract) -> None:
    program = kernel.program()
    program.commit(*small_table())
    many = table()
    keys = (bytes([6, 0, 0, 0, *n.to_bytes(2, "big"), 0, 0]) for n in range(1, 4000))
    many.add_elements("known", dict.fromkeys(keys, b""))
    program.commit(*many.messages)
    place = wire.netfilter(INET) + NAME + wire.string(2, "known")
    program.begin_listing(GET_ELEMENT, place)
    program.begin_listing(GET_ELEMENT, place)
    with pytest.raises(OSError, match="refused") as caught:
        program.read_listing()
    assert caught.value.errno == errno.EBUSY


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        pytest.param(GET_SET, wire.string(1, "gone"), id="sets of no table"),
        pytest.param(GET_ELEMENT, NAME + wire.string(2, "gone"), id="no set"),
    ],
)
def test_listing_a_nonexistent_table_or_set_fails_with_enoent(
    kernel: Contract, kind: int, body: bytes
) -> None:
    program = kernel.program()
    program.commit(*small_table())
    with pytest.raises(OSError, match="refused") as caught:
        program.list(kind, wire.netfilter(INET) + body)
    assert caught.value.errno == errno.ENOENT


def test_listing_the_rules_of_a_nonexistent_table_returns_no_rules(kernel: Contract) -> None:
    program = kernel.program()
    body = wire.netfilter(INET) + wire.string(1, "gone")
    assert program.list(GET_RULE, body).items == []


def test_an_owned_table_is_deleted_only_with_its_socket(kernel: Contract) -> None:
    program, other = kernel.program(), kernel.program()
    made = table()
    made.create(is_owned=True)
    assert program.commit(*made.messages) == 0
    gone = table()
    gone.delete()
    assert other.commit(*gone.messages) == errno.EPERM
    flush = wire.message(0xA02, wire.F_REQUEST, 0, 0, wire.netfilter(0))
    assert other.commit(flush) == 0
    assert len(other.list(GET_TABLE, wire.netfilter(INET)).items) == 1
    program.sock.close()
    assert other.list(GET_TABLE, wire.netfilter(INET)).items == []


def test_both_kernels_list_the_products_tables_identically() -> None:
    simulated, real = SimulatedKernel(), RealKernel()
    target = KernelTarget(
        36003,
        (
            EndpointChoice((SocketAddress("10.244.1.2", 8080),), ("10.244.0.0/16",)),
            EndpointChoice((SocketAddress("10.244.1.3", 80), SocketAddress("10.244.1.4", 80))),
        ),
        Affinity("shop/web", 60),
    )
    known = kernel_rules.KernelRules()
    web, web6 = (Frontend(ip, 80, Protocol.TCP) for ip in ("10.96.7.1", "fd00:96::1"))
    to6 = KernelTarget(36004, (EndpointChoice((SocketAddress("fd00:1::2", 80),)),), by_client=True)
    known.accept(known.difference({web: target, web6: to6}))
    paths = kernel_rules.write_table("paths", has_counters=True)
    for one in known.choosers.items():
        paths += write_chooser("paths", *one)
    filled = TableWriter("paths")
    filled.change_elements(kernel_rules.SETS, (), known.elements())
    main = rules.write_table(rules.Shape("main", 35999, "10.1.0.1"))
    listed = []
    for kernel in (simulated, real):
        assert kernel.program().commit(*main, *paths, *filled.messages) == 0
        with kernel.inside():
            found = {}
            for name in ("main", "paths"):
                table_of = NftTable(name)
                listing = table_of.look()
                assert listing is not None
                found[name] = listing.definitions, listing.elements
                table_of.close()
            listed.append(found)
        kernel.close()
    for name in ("main", "paths"):
        for mine, theirs in zip(listed[0][name][0], listed[1][name][0], strict=True):
            assert _comparable(mine) == _comparable(theirs)
        assert listed[0][name][1] == listed[1][name][1]


def _comparable(definition: Any) -> Any:
    if not hasattr(definition, "expressions"):
        return definition
    # The kernel may list attributes in another order.
    found = [
        (one.name, sorted((kind, tree(value)) for kind, value in one.attributes().items()))
        for one in definition.expressions()
    ]
    return definition.chain, found


def test_conntrack_entries_are_filtered_and_deleted_by_id(kernel: Contract) -> None:
    flows = [
        Flow(protocol, Place("10.1.7.7", port), Place("10.96.7.1", dialled))
        for protocol, port, dialled in ((17, 5001, 53), (17, 5002, 54), (6, 5003, 80))
    ]
    program = kernel.program()
    for flow in flows:
        _add_entry(kernel, program, flow)
    listed = _entries(program, EntryFilter(socket.IPPROTO_UDP))
    assert sorted(one.client[-2:] for one in listed) == [b"\x13\x89", b"\x13\x8a"]
    (dns,) = _entries(program, EntryFilter(socket.IPPROTO_UDP, "10.96.7.1", 53))
    assert dns.dialled[-2:] == b"\0\x35"
    assert len(_entries(program, EntryFilter(socket.IPPROTO_TCP, without=2))) == 1
    request = remove_request(dns)
    assert _code(program, request) == 0
    assert _code(program, request) == errno.ENOENT
    assert _entries(program, EntryFilter(socket.IPPROTO_UDP, "10.96.7.1", 53)) == []


def _code(program: Any, request: bytes) -> int:
    kind, body = int.from_bytes(request[4:6], "little"), request[16:]
    return abs(int.from_bytes(program.ask(kind, body, wire.F_ACK).body[:4], "little", signed=True))


def _entries(program: Any, wanted: EntryFilter) -> list[Any]:
    request = list_request(4, wanted)
    kind, body = int.from_bytes(request[4:6], "little"), request[16:]
    blocks = (wire.message(kind, 0, 0, 0, body) for kind, body in program.list(kind, body).items)
    return [one for block in blocks for one in read_entries(block, 4, wanted.protocol)]


def _add_entry(kernel: Contract, program: Any, flow: Flow) -> None:
    if isinstance(kernel, SimulatedKernel):
        kernel.tables.conntrack.add(flow, flow.dialled, is_translated=False)
        return
    reply = Flow(flow.protocol, flow.dialled, flow.client)
    body = wire.netfilter(socket.AF_INET) + entries._tuple(1, flow) + entries._tuple(2, reply)
    body += wire.be32(3, entries.CONFIRMED) + wire.be32(7, 60)
    if flow.protocol == socket.IPPROTO_TCP:
        body += wire.nest(4, wire.nest(1, wire.attribute(1, b"\1")))
    answer = program.ask(0x100, body, wire.F_ACK | wire.F_CREATE)
    assert int.from_bytes(answer.body[:4], "little") == 0
