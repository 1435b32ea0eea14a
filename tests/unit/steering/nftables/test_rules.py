"""Rules and elements as messages, parsed back; tests/node compares them with ``nft``'s output."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from userspace_proxy.kernel.netlink.messages import read_all, read_messages, text_in
from userspace_proxy.kernel.nf_tables import reader, writer
from userspace_proxy.kernel.nf_tables.nft_table import Listing
from userspace_proxy.kernel.nf_tables.writer import TableWriter
from userspace_proxy.model import Frontend, FrontendKind, IPFamily, Protocol, pack_ip
from userspace_proxy.steering.nftables.rules import (
    FRONTEND,
    SETS,
    Shape,
    all_elements,
    count_uses,
    differing_frontends,
    frontend_key,
    is_looked_up,
    port_key,
    read_frontend,
    read_ports,
    refuse_port_of,
    to_ip_of,
    write_prerouting,
    write_table,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
DNS = Frontend("10.96.0.10", 53, Protocol.UDP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
REFUSE_PORT = 35999
SHAPE = Shape("userspace-proxy", REFUSE_PORT)
PORTS = {WEB: 36001, CART: REFUSE_PORT, DNS: 36002, WEB_6: 36001}


def listed(messages):
    """Return chains and rules as the kernel lists them."""
    found = [message for block in messages for message in read_messages(block)]
    chains = [reader.read_chain(one) for one in found if one.kind == writer.NEW_CHAIN]
    rules = [reader.read_rule(one) for one in found if one.kind == writer.NEW_RULE]
    return Listing(is_owned=False, definitions=(*chains, *rules))


def written(removed, added):
    """Return for each message "add" or "delete", the set, and the elements."""
    table = TableWriter("userspace-proxy")
    table.change_elements(SETS, removed, added)
    found = [one for block in table.messages for one in read_messages(block)]
    return [
        (
            "add" if one.kind == writer.NEW_ELEMENT else "delete",
            text_in(read_all(one.body, 4), writer.SET_NAME),
            dict(reader.read_elements(one)),
        )
        for one in found
    ]


def maps_to(ports):
    """Return the elements of a map from frontends to ports."""
    return {frontend_key(f): port.to_bytes(2, "big") for f, port in ports.items()}


def keys(*frontends):
    """Return the keys of a map in a message that removes them."""
    return dict.fromkeys(map(frontend_key, frontends), b"")


def guards(*ports):
    """Return the elements of the guard for these ports."""
    return dict.fromkeys((port_key(protocol, port) for protocol, port in ports), b"")


TCP, UDP = Protocol.TCP, Protocol.UDP


def test_without_a_refuse_port_the_guard_has_no_rule_for_refusals():
    assert len(listed(write_table(SHAPE)).rules("input")) == 6
    without = listed(write_table(SHAPE._replace(refuse_port=0)))
    assert (len(without.rules("input")), without.rules("output_others")) == (4, [])


def test_with_an_unnumbered_interface_ipv4_is_translated_to_the_nodes_address():
    flush, *added = write_prerouting(SHAPE._replace(to_ip="10.1.0.1"))
    (message,) = read_messages(flush)
    assert message.kind == writer.DELETE_RULE
    rules = listed(added)
    assert [rule[-1].name for rule in rules.rules("prerouting")] == ["nat", "redir"]
    refusals = [rule[-1].name for rule in rules.rules("prerouting_others")]
    assert refusals == ["dynset", "nat", "dynset", "redir"]


def test_all_elements_are_added_with_the_guard_first():
    assert written((), all_elements(PORTS, REFUSE_PORT)) == [
        ("add", "guarded", guards((TCP, 36001), (UDP, 36002))),
        ("add", "frontends6", maps_to({WEB_6: 36001})),
        ("add", "frontends4", maps_to({WEB: 36001, CART: REFUSE_PORT, DNS: 36002})),
        ("add", "cluster_ips6", {pack_ip(WEB_6.ip): b""}),
        ("add", "cluster_ips4", {pack_ip(one.ip): b"" for one in (WEB, CART, DNS)}),
    ]


@pytest.mark.parametrize(
    ("affected", "commands"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param(
            {WEB: 36005},
            [
                ("delete", "frontends4", keys(WEB)),
                ("add", "guarded", guards((TCP, 36005))),
                ("add", "frontends4", maps_to({WEB: 36005})),
            ],
            id="another-port-while-the-old-one-is-in-use",
        ),
        pytest.param(
            {DNS: REFUSE_PORT},
            [
                ("delete", "frontends4", keys(DNS)),
                ("add", "frontends4", maps_to({DNS: REFUSE_PORT})),
            ],
            id="no-endpoint-left",
        ),
        pytest.param(
            {WEB: None, WEB_6: None},
            [
                ("delete", "cluster_ips4", {pack_ip(WEB.ip): b""}),
                ("delete", "cluster_ips6", {pack_ip(WEB_6.ip): b""}),
                ("delete", "frontends4", keys(WEB)),
                ("delete", "frontends6", keys(WEB_6)),
            ],
            id="both-families-gone",
        ),
        pytest.param(
            {WEB: None, CART: 36001},
            [
                ("delete", "cluster_ips4", {pack_ip(WEB.ip): b""}),
                ("delete", "frontends4", keys(WEB, CART)),
                ("add", "frontends4", maps_to({CART: 36001})),
            ],
            id="a-port-taken-over-by-another-frontend",
        ),
    ],
)
def test_a_difference_is_encoded_as_elements(affected, commands):
    uses = count_uses(PORTS, REFUSE_PORT)
    changes, uses_now = differing_frontends(PORTS, affected, uses, REFUSE_PORT)
    assert written(*changes) == commands
    after = {f: p for f, p in (PORTS | affected).items() if p is not None}
    assert +Counter(uses | uses_now) == count_uses(after, REFUSE_PORT)


def test_only_cluster_ips_are_counted_when_a_frontend_changes_its_kind():
    external = replace(WEB, kind=FrontendKind.EXTERNAL_IP)
    for old, new, count in ((external, WEB, 1), (WEB, external, 0), (external, external, 0)):
        uses = count_uses({old: 36001}, REFUSE_PORT)
        _, uses_now = differing_frontends({old: 36001}, {new: 36005}, uses, REFUSE_PORT)
        assert uses_now[pack_ip(WEB.ip)] == count


def test_the_ports_of_frontends_are_read_from_elements():
    elements = all_elements(PORTS, REFUSE_PORT)
    assert read_ports(elements) == PORTS
    assert read_ports(elements, ["frontends6"]) == {WEB_6: 36001}


def test_the_refuse_port_and_address_are_read_from_rules():
    listing = listed(write_table(SHAPE._replace(to_ip="10.1.0.1")))
    assert (refuse_port_of(listing), to_ip_of(listing)) == (35999, "10.1.0.1")
    empty = listed([])
    assert (refuse_port_of(empty), to_ip_of(empty)) == (0, "")


@pytest.mark.parametrize(
    ("map_", "chain"), [("frontends4", "output"), ("ranges6", "output_ranges")]
)
def test_a_map_counts_as_active_only_if_both_of_its_nat_chains_use_it(map_, chain):
    listing = listed(write_table(SHAPE))
    assert is_looked_up(listing, map_)
    without = [one for one in listing.definitions if getattr(one, "chain", "") != chain]
    assert not is_looked_up(Listing(is_owned=False, definitions=tuple(without)), map_)


DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)
COMPATIBLE = Frontend("::a00:1", 53, Protocol.UDP)


@pytest.mark.parametrize("frontend", [WEB, DNS_6, COMPATIBLE], ids=str)
def test_a_frontend_round_trips_as_an_element_key(frontend):
    key = frontend_key(frontend)
    assert len(key) == FRONTEND[frontend.family].width
    assert read_frontend(key, frontend.family) == frontend


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(b"", id="catch-all"),
        pytest.param(frontend_key(DNS_6), id="other-family"),
        pytest.param(frontend_key(WEB)[:4] + bytes([132, 0, 0, 0, 0, 80, 0, 0]), id="sctp"),
        pytest.param(frontend_key(WEB)[:8] + bytes(4), id="no-port"),
    ],
)
def test_a_foreign_element_is_not_parsed_as_a_frontend(key):
    assert read_frontend(key, IPFamily.IPV4) is None


RANGE = Frontend("10.96.7.1", 30000, Protocol.TCP, last=30100)
RANGE_6 = Frontend("fd00:96::1", 30000, Protocol.UDP, last=30100)


def test_a_range_is_an_element_of_a_separate_map():
    external = [replace(one, kind=FrontendKind.EXTERNAL_IP) for one in (RANGE, RANGE_6)]
    affected = dict(zip(external, (36003, 36004), strict=True))
    changes, uses = differing_frontends({}, affected, {}, REFUSE_PORT)
    assert {name for name, _, _ in changes.added} == {"ranges4", "ranges6", "guarded"}
    assert read_ports(changes.added) == {RANGE: 36003, RANGE_6: 36004}
    assert len(uses) == 2


@pytest.mark.parametrize("frontend", [RANGE, RANGE_6])
def test_a_range_round_trips_as_an_interval(frontend):
    assert read_frontend(frontend_key(frontend), frontend.family) == frontend


def test_a_foreign_interval_is_not_parsed_as_a_range():
    first, other = frontend_key(WEB), frontend_key(CART)
    assert read_frontend(writer.Interval(first + other), IPFamily.IPV4) is None
    assert read_frontend(writer.Interval(first[:-4] + other[:-4]), IPFamily.IPV4) is None
