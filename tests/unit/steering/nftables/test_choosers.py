"""The chains of ways of choosing, as messages; test_kernel_path has them in a kernel."""

from __future__ import annotations

from userspace_proxy.kernel.netlink.messages import number_in, read_messages
from userspace_proxy.kernel.nf_tables import reader, writer
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import Affinity, EndpointChoice, KernelTarget
from userspace_proxy.steering.nftables.choosers import (
    ChooserChain,
    chooser_of,
    pack_number,
    write_chooser,
    write_without_chooser,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
A, B = SocketAddress("10.244.1.2", 8080), SocketAddress("10.244.1.3", 8080)
# NFTA_HASH_OFFSET of linux/netfilter/nf_tables.h.
HASH_OFFSET = 6
INSIDE = EndpointChoice((A,), ("10.244.0.0/16", "10.0.0.0/24"))


def rules_of(messages):
    found = [message for block in messages for message in read_messages(block)]
    return [reader.read_rule(one) for one in found if one.kind == writer.NEW_RULE]


def kinds(messages):
    return [one.kind for block in messages for one in read_messages(block)]


def test_frontends_with_equally_many_endpoints_have_one_chain_with_one_rule():
    chooser = chooser_of(WEB, KernelTarget(1, (EndpointChoice((A, B)),)))
    assert chooser == chooser_of(WEB, KernelTarget(2, (EndpointChoice((B, A)),)))
    (rule,) = rules_of(write_chooser("t", chooser, ChooserChain(7)))
    assert rule.chain == "choose-7-of-2-ip"
    names = [one.name for one in rule.expressions()]
    # The first look-up counts the connection; the last one finds the endpoint.
    at = names.index("numgen")
    assert (names[at - 1], names[at + 1]) == ("lookup", "lookup")


def test_a_choice_by_the_clients_address_has_a_chain_that_hashes_it():
    hashed = chooser_of(WEB, KernelTarget(1, (EndpointChoice((A, B)),), by_client=True))
    assert hashed != chooser_of(WEB, KernelTarget(1, (EndpointChoice((A, B)),)))
    (rule,) = rules_of(write_chooser("t", hashed, ChooserChain(7)))
    assert rule.chain == "hash-7-of-2-ip"
    names = [one.name for one in rule.expressions()]
    assert "hash" in names
    assert "numgen" not in names


def test_the_second_of_two_choices_by_hash_begins_behind_the_endpoints_of_the_first():
    target = KernelTarget(1, (INSIDE, EndpointChoice((B,))), by_client=True)
    rules = rules_of(write_chooser("t", chooser_of(WEB, target), ChooserChain(7)))
    hashed = [one for rule in rules for one in rule.expressions() if one.name == "hash"]
    assert [number_in(one.attributes(), HASH_OFFSET) for one in hashed] == [0, 1]


def test_clients_of_some_networks_have_a_chain_of_their_own():
    chooser = chooser_of(WEB, KernelTarget(1, (INSIDE, EndpointChoice((B,)))))
    chains = [rule.chain for rule in rules_of(write_chooser("t", chooser, ChooserChain(7)))]
    name = "choose-7-of-1-1-ip"
    assert chains == [name, name, f"{name}-0", name]
    gone = kinds(write_without_chooser("t", chooser, ChooserChain(7)))
    assert gone == [writer.DELETE_RULE] * 2 + [writer.DELETE_CHAIN] * 2


def test_with_affinity_each_endpoint_has_a_chain_that_remembers_the_client():
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


def test_a_service_with_affinity_leads_to_its_own_endpoints_only():
    """With one map of all Services, each rule cost as much as they had endpoints together."""
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
