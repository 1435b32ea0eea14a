"""The chains of balancing methods, as messages; test_kernel_path applies them to a kernel."""

from __future__ import annotations

import itertools

import pytest

from userspace_proxy.kernel.netlink.messages import number_in, read_messages
from userspace_proxy.kernel.nf_tables import reader, writer
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import Affinity, EndpointChoice, KernelTarget
from userspace_proxy.steering.nftables.choosers import (
    ChooserChain,
    chooser_of,
    pack_number,
    shifts,
    write_chooser,
    write_without_chooser,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
A, B = SocketAddress("10.244.1.2", 8080), SocketAddress("10.244.1.3", 8080)
# Source: NFTA_HASH_LEN, _MODULUS and _OFFSET, and NFTA_NAT_REG_ADDR_MIN, _PROTO_MIN and _PROTO_MAX,
# of linux/netfilter/nf_tables.h.
HASH_LENGTH, HASH_MODULUS, HASH_OFFSET = 3, 4, 6
NAT_ADDRESS, NAT_FIRST_PORT, NAT_LAST_PORT = 3, 5, 6
INSIDE = EndpointChoice((A,), ("10.244.0.0/16", "10.0.0.0/24"))


def rules_of(messages):
    found = [message for block in messages for message in read_messages(block)]
    return [reader.read_rule(one) for one in found if one.kind == writer.NEW_RULE]


def kinds(messages):
    return [one.kind for block in messages for one in read_messages(block)]


def test_frontends_with_equally_many_endpoints_share_a_chain_with_one_rule():
    chooser = chooser_of(WEB, KernelTarget(1, (EndpointChoice((A, B)),)))
    assert chooser == chooser_of(WEB, KernelTarget(2, (EndpointChoice((B, A)),)))
    (rule,) = rules_of(write_chooser("t", chooser, ChooserChain(7)))
    assert rule.chain == "choose-7-of-2-ip"
    names = [one.name for one in rule.expressions()]
    # The first look-up counts the connection, the last look-up finds the endpoint.
    at = names.index("numgen")
    assert (names[at - 1], names[at + 1]) == ("lookup", "lookup")


def test_source_hash_balancing_uses_a_chain_with_a_hash_expression():
    hashed = chooser_of(WEB, KernelTarget(1, (EndpointChoice((A, B)),), by_client=True))
    assert hashed != chooser_of(WEB, KernelTarget(1, (EndpointChoice((A, B)),)))
    (rule,) = rules_of(write_chooser("t", hashed, ChooserChain(7)))
    assert rule.chain == "hash-7-of-2-ip"
    names = [one.name for one in rule.expressions()]
    assert "hash" in names
    assert "numgen" not in names


def test_a_second_hashed_choice_numbers_its_endpoints_after_the_first_choice():
    target = KernelTarget(1, (INSIDE, EndpointChoice((A, B))), by_client=True)
    rules = rules_of(write_chooser("t", chooser_of(WEB, target), ChooserChain(7)))
    hashed = [
        one.attributes() for rule in rules for one in rule.expressions() if one.name == "hash"
    ]
    assert [number_in(one, HASH_OFFSET) for one in hashed] == [0, 1]
    assert [number_in(one, HASH_MODULUS) for one in hashed] == [1, 2]
    assert [number_in(one, HASH_LENGTH) for one in hashed] == [4, 4]


def test_a_choice_limited_to_client_networks_has_its_own_chain():
    chooser = chooser_of(WEB, KernelTarget(1, (INSIDE, EndpointChoice((B,)))))
    written = write_chooser("t", chooser, ChooserChain(7))
    assert kinds(written).count(writer.NEW_CHAIN) == 2
    chains = [rule.chain for rule in rules_of(written)]
    name = "choose-7-of-1-1-ip"
    assert chains == [name, name, f"{name}-0", name]
    gone = kinds(write_without_chooser("t", chooser, ChooserChain(7)))
    assert gone == [writer.DELETE_RULE] * 2 + [writer.DELETE_CHAIN] * 2


def test_with_affinity_each_endpoint_has_a_chain_that_stores_the_client():
    target = KernelTarget(1, (EndpointChoice((A, A, B)),), Affinity("shop/web", 60))
    chooser, chain = chooser_of(WEB, target), ChooserChain(9, {A: 7, B: 8})
    name = "choose-9-of-3-ip"
    assert [rule.chain for rule in rules_of(write_chooser("t", chooser, chain))] == [
        *[name] * 3,
        *[f"{name}-to-7"] * 2,
        *[f"{name}-to-8"] * 2,
    ]
    assert kinds(write_without_chooser("t", chooser, chain)) == [
        *[writer.DELETE_RULE] * 3,
        *[writer.DELETE_CHAIN] * 3,
    ]


def test_a_service_with_affinity_has_only_its_own_endpoint_map():
    """With one map for all Services, the cost of each rule would grow with all endpoints."""
    target = KernelTarget(1, (EndpointChoice((A, A, B)),), Affinity("shop/web", 60))
    messages = write_chooser("t", chooser_of(WEB, target), ChooserChain(9, {A: 7, B: 8}))
    parsed = [one for block in messages for one in read_messages(block)]
    (made,) = [reader.read_set(one) for one in parsed if one.kind == writer.NEW_SET]
    assert made.flags & reader.ANONYMOUS_SET
    (filled,) = [one for one in parsed if one.kind == writer.NEW_ELEMENT]
    to_7, to_8 = (writer.goto_chain(f"choose-9-of-3-ip-to-{number}") for number in (7, 8))
    assert list(reader.read_elements(filled)) == [
        (pack_number(0), to_7),
        (pack_number(1), to_7),
        (pack_number(2), to_8),
    ]


RTP = Frontend("10.96.7.1", 10000, Protocol.UDP, last=20000)
PODS = SocketAddress("10.244.1.2", 10000), SocketAddress("10.244.1.3", 10000)


def test_without_affinity_a_range_has_a_chain_per_endpoint():
    chooser = chooser_of(RTP, KernelTarget(1, (EndpointChoice(PODS),)))
    chain = ChooserChain(7, {PODS[0]: 8, PODS[1]: 9})
    rules = rules_of(write_chooser("t", chooser, chain))
    assert [rule.chain for rule in rules] == [
        "choose-7-of-2-ip",
        "choose-7-of-2-ip-to-8",
        "choose-7-of-2-ip-to-9",
    ]
    names = [one.name for one in rules[1].expressions()]
    assert "dynset" not in names
    assert names[-1] == "nat"


def test_a_range_with_affinity_stores_the_client():
    target = KernelTarget(1, (EndpointChoice(PODS),), Affinity("shop/sip", 60))
    chooser = chooser_of(RTP, target)
    rules = rules_of(write_chooser("t", chooser, ChooserChain(7, {PODS[0]: 8, PODS[1]: 9})))
    kinds_of = [one.name for rule in rules for one in rule.expressions()]
    assert kinds_of.count("dynset") == 2


@pytest.mark.parametrize("last", [0, 20000], ids=["port", "range"])
@pytest.mark.parametrize(
    ("ip", "pod", "width"),
    [("10.96.7.1", "10.244.1.2", 1), ("fd00:96::1", "fd00:10::2", 4)],
    ids=["ipv4", "ipv6"],
)
def test_a_translation_takes_the_ports_from_the_registers_after_the_address(ip, pod, width, last):
    pod = SocketAddress(pod, 5000)
    target = KernelTarget(1, (EndpointChoice((pod,)),), Affinity("shop/sip", 60))
    chooser = chooser_of(Frontend(ip, 10000, Protocol.UDP, last=last), target)
    rules = rules_of(write_chooser("t", chooser, ChooserChain(7, {pod: 8})))
    nats = [one.attributes() for rule in rules for one in rule.expressions() if one.name == "nat"]
    assert nats
    for nat in nats:
        address = number_in(nat, NAT_ADDRESS)
        assert number_in(nat, NAT_FIRST_PORT) == address + width
        assert number_in(nat, NAT_LAST_PORT) == (address + width + 1 if last else 0)


@pytest.mark.parametrize(
    ("first", "last", "offset"),
    [
        pytest.param(10000, 20000, 5, id="up"),
        pytest.param(1, 2, 65533, id="to-the-end"),
        pytest.param(100, 300, 19900, id="far-up"),
        pytest.param(60000, 65535, -59999, id="far-down"),
        pytest.param(50000, 65000, -35000, id="down"),
        pytest.param(20500, 45000, -501, id="down-in-parts"),
        pytest.param(3, 40000, -2, id="down-in-many-parts"),
        pytest.param(40000, 40100, -1000, id="a-little-down"),
    ],
)
def test_the_ports_of_a_range_are_shifted_by_modulo_arithmetic(first, last, offset):
    parts = list(shifts(first, last, offset))
    ports = itertools.chain.from_iterable(range(p.first, p.last + 1) for p in parts)
    assert list(ports) == list(range(first, last + 1))
    for part in parts:
        # The kernel's port numbers have 16 bits.
        assert 0 <= part.to_first <= part.to_last <= 65535
        divisor = part.to_last - part.to_first + 1
        for port in (part.first, (part.first + part.last) // 2, part.last):
            assert part.to_first + port % divisor == port + offset
