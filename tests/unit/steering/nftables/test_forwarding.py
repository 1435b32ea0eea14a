"""The elements of the kernel path, and their differences; no kernel is needed."""

from __future__ import annotations

import sys

from userspace_proxy.kernel.netlink.messages import read_messages
from userspace_proxy.kernel.nf_tables import reader, writer
from userspace_proxy.kernel.nf_tables.writer import goto_chain
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import EndpointChoice, Forward
from userspace_proxy.steering.nftables.elements import frontend_key
from userspace_proxy.steering.nftables.forwarding import (
    SETS,
    Forwarding,
    chain_of,
    chooser_of,
    link_elements,
    read_forwards,
    write_chooser,
    write_elements,
    write_table,
    write_without_chooser,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
A, B = SocketAddress("10.244.1.2", 8080), SocketAddress("10.244.1.3", 8080)
A_6 = SocketAddress("fd00:10::2", 8080)
BOTH, ONE, SIX = (
    Forward(1, (EndpointChoice((A, B)),)),
    Forward(1, (EndpointChoice((A,)),)),
    EndpointChoice((A_6,)),
)


def loaded(**_):
    forwarding = Forwarding()
    forwarding.accept(forwarding.difference({WEB: BOTH, WEB_6: Forward(1, (SIX,))}))
    return forwarding


def kinds(messages):
    return [one.kind for block in messages for one in read_messages(block)]


def by_set(elements):
    found = {}
    for name, key, value in elements:
        found.setdefault(name, {})[key] = value
    return found


def test_a_frontend_leads_to_its_endpoints_and_is_read_back():
    assert read_forwards(by_set(loaded().elements())) == {WEB: (A, B), WEB_6: (A_6,)}


def test_an_endpoint_without_its_frontend_is_not_in_force():
    elements = by_set(loaded().elements())
    del elements["choices4"]
    assert read_forwards(elements) == {WEB_6: (A_6,)}


def test_services_that_choose_alike_share_a_chain():
    forwarding = loaded()
    change = forwarding.difference({CART: BOTH})
    assert (change.new_choosers, change.removed) == ({}, set())
    chain = chain_of(chooser_of(WEB, BOTH), forwarding.choosers[chooser_of(WEB, BOTH)])
    assert ("choices4", frontend_key(CART), goto_chain(chain)) in change.added


def test_a_change_of_an_endpoint_changes_one_element():
    forwarding = loaded()
    other = Forward(1, (EndpointChoice((A, SocketAddress("10.244.1.9", 8080))),))
    change = forwarding.difference({WEB: other})
    (removed,), (added,) = change.removed, change.added
    assert (
        removed[:2]
        == added[:2]
        == (
            "endpoints4",
            frontend_key(WEB) + (1).to_bytes(4, sys.byteorder),
        )
    )


def test_a_chain_goes_with_the_last_frontend_that_uses_it():
    forwarding = loaded()
    forwarding.accept(forwarding.difference({CART: BOTH}))
    change = forwarding.difference({WEB: ONE})
    assert change.gone_choosers == {}
    forwarding.accept(change)
    change = forwarding.difference({CART: None})
    assert [*change.gone_choosers] == [chooser_of(WEB, BOTH)]
    forwarding.accept(change)
    assert read_forwards(by_set(forwarding.elements())) == {WEB: (A,), WEB_6: (A_6,)}


def test_a_frontend_whose_path_is_off_or_that_has_no_choice_is_not_in_the_table():
    forwarding = loaded()
    forwarding.accept(
        forwarding.difference({WEB: Forward(1, BOTH.choices, is_on=False), WEB_6: Forward(1)})
    )
    assert (forwarding.elements(), forwarding.choosers) == (set(), {})


def test_nothing_changes_if_targets_are_the_same():
    assert not loaded().difference({WEB: BOTH, CART: None}).forwards


def test_a_difference_that_is_not_accepted_changes_nothing():
    forwarding = loaded()
    before = forwarding.elements()
    forwarding.difference({WEB: None, CART: ONE})
    assert forwarding.elements() == before


def test_clients_of_some_networks_have_a_chain_of_their_own():
    forward = Forward(
        1, (EndpointChoice((A,), ("10.244.0.0/16", "10.0.0.0/24")), EndpointChoice((B,)))
    )
    chooser = chooser_of(WEB, forward)
    assert chain_of(chooser, 7) == "choose-7-of-1-1-ip"
    written = [m for b in write_chooser("t", chooser, 7) for m in read_messages(b)]
    rules = [reader.read_rule(m).chain for m in written if m.kind == writer.NEW_RULE]
    assert rules == ["choose-7-of-1-1-ip"] * 2 + ["choose-7-of-1-1-ip-0", "choose-7-of-1-1-ip"]
    gone = kinds(write_without_chooser("t", chooser, 7))
    assert gone == [writer.DELETE_RULE] * 2 + [writer.DELETE_CHAIN] * 2


def test_elements_are_removed_from_the_frontend_on_and_added_up_to_it():
    forwarding = loaded()
    elements = forwarding.elements()
    steps = write_elements("t", elements, elements)
    messages = [message for step in steps for block in step for message in read_messages(block)]
    deleted = [m for m in messages if m.kind == writer.DELETE_ELEMENT]
    assert len(deleted) == len(messages) / 2 == len(SETS)
    assert messages[: len(SETS)] == deleted


def test_the_table_has_a_set_of_links_and_chains_for_all_hooks():
    messages = [m for block in write_table("t") for m in read_messages(block)]
    chains = {reader.read_chain(m).hook for m in messages if m.kind == writer.NEW_CHAIN}
    assert chains == {"prerouting", "output", "postrouting", ""}
    assert {name for name, _, _ in link_elements({7, 8})} == {"links", "same_link"}
