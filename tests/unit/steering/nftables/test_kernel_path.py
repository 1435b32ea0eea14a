"""Keeping the contents of the kernel path's table in a real kernel."""

from __future__ import annotations

import errno
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from userspace_proxy.balance import fill_slots
from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink import Requests
from userspace_proxy.kernel.nf_tables import NftablesError, Ruleset, writer
from userspace_proxy.kernel.nf_tables import expressions as x
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import Affinity, EndpointChoice, KernelTarget
from userspace_proxy.steering.nftables import kernel_path as module
from userspace_proxy.steering.nftables import kernel_rules
from userspace_proxy.steering.nftables.kernel_path import Counts, KernelPath

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
CART = Frontend("10.96.7.2", 80, Protocol.TCP)
A, B = SocketAddress("10.244.1.2", 8080), SocketAddress("10.244.1.3", 8080)
BOTH, ONE = KernelTarget(1, (EndpointChoice((A, B)),)), KernelTarget(1, (EndpointChoice((A,)),))
BY_HASH = replace(BOTH, by_client=True)
TABLE = "inet userspace-proxy/paths"


def test_the_kernel_path_table_is_created_with_its_first_frontend(node, path):
    path.load({})
    assert node.run("nft list tables") == ""
    assert path.repair() == 0
    path.change({WEB: BOTH})
    node.run(f"nft flush map {TABLE} choices4")
    assert path.repair() == 1
    assert path.in_force() == {WEB: (A, B)}
    path.change({WEB: None})
    assert path.in_force() == {}
    path.remove()
    assert node.run("nft list tables") == ""


def test_a_new_table_with_a_lost_confirmation_is_repaired(path, monkeypatch):
    def no_buffers(_requests, _numbers):
        raise OSError(errno.ENOBUFS, "No buffer space available")

    path.load({})
    commit = Ruleset.commit

    def commit_without_an_answer(ruleset, messages):
        with monkeypatch.context() as memory:
            memory.setattr(Requests, "_receive", no_buffers)
            commit(ruleset, messages)

    with monkeypatch.context() as patched:
        patched.setattr(Ruleset, "commit", commit_without_an_answer)
        with pytest.raises(NftablesError, match="buffer"):
            path.change({WEB: BOTH})
    assert path.in_force() == {WEB: (A, B)}
    assert path.repair() > 0
    assert path.in_force() == {}


def test_sources_are_masqueraded_if_replies_would_bypass_this_node(node, path):
    path.load({WEB: BOTH})
    listed = node.run(f"nft list chain {TABLE} source; nft list chain {TABLE} postrouting")
    masquerading = """
        iif . oif @same_link masquerade fully-random
        fib saddr type local accept
        iif 0 masquerade fully-random
        iif @links accept
        oif @links accept
        masquerade fully-random
    }"""
    assert [*map(str.strip, masquerading.split("\n"))][1:] == [*map(str.strip, listed.split("\n"))][
        2:9
    ]
    for ours in ("forwarded4", "forwarded6", "ranged4", "ranged6"):
        assert f" . ct original proto-dst @{ours} goto source\n" in listed


def test_replacing_endpoints_by_equally_many_writes_no_rules(node, path):
    path.load({WEB: BOTH})
    before = node.run(f"nft -a list table {TABLE} | grep -v elements")
    path.change({WEB: KernelTarget(1, (EndpointChoice((B, A)),))})
    after = node.run(f"nft -a list table {TABLE} | grep -v elements")
    assert path.in_force() == {WEB: (B, A)}
    assert after.replace("10.244.1.2", "").replace("10.244.1.3", "") == before.replace(
        "10.244.1.2", ""
    ).replace("10.244.1.3", "")
    path.change({CART: ONE})
    assert path.repair() == 0


def test_changes_are_incremental_again_after_a_rewrite(node, path):
    path.load({WEB: BOTH})
    node.run(f"nft add element {TABLE} links '{{ 77 }}'")
    path.change({CART: BOTH})
    # A rewritten table has another handle.
    written = node.run(f"nft -a list table {TABLE} | head -n 1")
    path.change({CART: None})
    assert node.run(f"nft -a list table {TABLE} | head -n 1") == written
    assert path.in_force() == {WEB: (A, B)}


@pytest.mark.parametrize(
    ("command", "drifted"),
    [
        pytest.param(f"flush map {TABLE} choices4", 1, id="map-flushed"),
        pytest.param(f"add element {TABLE} links {{ 77 }}", 1, id="link-added"),
    ],
)
def test_drift_is_counted_and_repaired(node, path, command, drifted):
    path.load({WEB: BOTH})
    before = node.run(f"nft list table {TABLE}")
    node.run(f"nft '{command}'")
    assert [path.repair(), path.repair()] == [drifted, 0]
    assert node.run(f"nft list table {TABLE}") == before


def test_a_changed_hashing_rule_is_detected_and_repaired(node, path):
    path.load({WEB: BY_HASH})
    chain = f"{TABLE} hash-1-of-2-ip"
    rule = (
        "dnat ip to ip daddr . meta l4proto . th dport . "
        "jhash ip saddr mod 2 seed 0x75707870 map @endpoints4"
    )
    assert rule in node.run(f"nft list chain {chain}")
    node.run(f"nft 'flush chain {chain}; add rule {chain} accept'")
    # One difference is the missing rule, the other its replacement.
    assert [path.repair(), path.repair()] == [2, 0]
    assert rule in node.run(f"nft list chain {chain}")


def test_a_larger_number_of_hash_slots_replaces_the_chain(node, path):
    few, many = (
        fill_slots([SocketAddress(f"10.244.1.{n}", 80) for n in range(e)], {}) for e in (16, 17)
    )
    path.load({WEB: KernelTarget(1, (EndpointChoice(few),), by_client=True)})
    path.change({WEB: KernelTarget(1, (EndpointChoice(many),), by_client=True)})
    chains = node.run("nft list chains inet")
    assert ("-of-128-" in chains, "-of-1024-" in chains) == (False, True)
    assert path.in_force() == {WEB: many}
    assert path.repair() == 0


def test_a_removed_range_leaves_no_chain(node, path):
    path.load({CART: ONE})
    before = node.run("nft list chains inet")
    ports = Frontend("10.96.7.1", 30000, Protocol.TCP, last=30100)
    path.change({ports: BOTH})
    assert node.run("nft list chains inet") != before
    node.run(f"nft flush map {TABLE} range_choices4")
    assert (path.repair(), path.take_repaired()) == (1, {ports: ()})
    path.change({ports: None}, [ports])
    assert node.run("nft list chains inet") == before


def test_with_affinity_and_source_hash_a_new_client_is_assigned_by_hash(node, path):
    path.load({WEB: replace(BY_HASH, affinity=Affinity("shop/web", 60))})
    assert "jhash ip saddr mod 2 seed 0x75707870 vmap {" in node.run(f"nft list table {TABLE}")
    assert path.repair() == 0


def test_a_rejected_undo_is_completed_by_the_next_repair(path, monkeypatch):
    def refuse(_ruleset, _messages):
        raise NftablesError(errno.ENOMEM, "")

    path.load({WEB: BOTH})
    path.change({WEB: ONE, CART: BOTH})
    with monkeypatch.context() as full:
        full.setattr(Ruleset, "commit", refuse)
        path.undo({WEB: BOTH, CART: None})
    assert path.in_force() == {WEB: (A,), CART: (A, B)}
    assert path.repair() > 0
    assert path.in_force() == {WEB: (A, B)}


def test_the_kernel_path_closes_its_descriptors_if_links_cannot_be_watched(node, monkeypatch):
    def fail():
        raise SteeringError("cannot watch this node's links")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(module, "PodLinks", fail)
    with pytest.raises(SteeringError, match="watch") as failure:
        KernelPath("")
    assert failure.value.__traceback__ is not None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_repair_after_a_rejected_change_restores_the_last_applied_endpoints(
    node, path, monkeypatch
):
    path.load({WEB: BOTH})
    with monkeypatch.context() as broken:
        broken.setattr(x, "pick", lambda *_: x.expression("no_such_expression"))
        with pytest.raises(NftablesError):
            path.change({CART: ONE})
        node.run("nft flush ruleset")
        with pytest.raises(NftablesError):
            path.change({CART: ONE})
    assert path.repair() > 0
    assert path.in_force() == {WEB: (A, B)}


def test_a_failed_rewrite_is_repeated_by_the_next_change(node, path, monkeypatch):
    def refuse(_ruleset, _messages):
        raise NftablesError(errno.ENOMEM, 0)

    path.load({WEB: BOTH})
    node.run("nft flush ruleset")
    with monkeypatch.context() as short:
        short.setattr(Ruleset, "commit", refuse)
        with pytest.raises(NftablesError, match="memory"):
            path.change({CART: ONE})
    path.change({CART: ONE})
    assert path.in_force() == {WEB: (A, B), CART: (A,)}
    # ENOMEM doesn't mean that the kernel can't count connections.
    assert path.connections() is not None
    assert path.repair() == 0


def test_the_next_change_completes_an_interrupted_change(node, path, monkeypatch):
    commit, calls = Ruleset.commit, []

    def halfway(ruleset, messages):
        calls.append(messages)
        if len(calls) == 1:
            raise NftablesError(errno.EMSGSIZE, 0)
        if len(calls) == 5:
            raise NftablesError(errno.ENOMEM, 0)
        commit(ruleset, messages)

    path.load({WEB: BOTH})
    with monkeypatch.context() as short:
        short.setattr(Ruleset, "commit", halfway)
        with pytest.raises(NftablesError, match="memory"):
            path.change({WEB: None, CART: ONE})
    path.change({WEB: None, CART: ONE})
    assert path.in_force() == {CART: (A,)}
    assert path.repair() == 0


def test_a_table_of_an_earlier_run_is_replaced_or_removed(node, path):
    path.load({WEB: BOTH})
    successor = KernelPath("")
    successor.load({CART: ONE})
    assert successor.in_force() == {CART: (A,)}
    successor.load({})
    assert node.run("nft list tables") == ""
    successor.close()


def test_container_interfaces_are_added_to_and_removed_from_the_links_set(node, path):
    node.run("ip link add v1 type veth; ip link set v1 up")
    path.load({WEB: BOTH})
    assert '"v1"' in node.run(f"nft list set {TABLE} links")
    node.run("ip link del v1; ip link add v0 type veth; ip link set v0 up")
    assert path.repair() == 0
    assert '"v0"' in node.run(f"nft list set {TABLE} links")
    assert '"v0" . "v0"' in node.run(f"nft list set {TABLE} same_link")
    node.run("ip link del v0")
    assert path.repair() == 0
    assert "elements" not in node.run(f"nft list set {TABLE} links")


def test_an_unwritten_links_element_is_written_by_the_next_repair(node, path, monkeypatch):
    path.load({WEB: BOTH})
    node.run("ip link add v0 type veth; ip link set v0 up")
    generation, calls = Ruleset.generation, count(1)

    def lacks_memory_once(ruleset):
        # The first call precedes the reading of the links.
        if next(calls) == 2:
            raise SteeringError("cannot query nftables: No buffer space available")
        return generation(ruleset)

    monkeypatch.setattr(Ruleset, "generation", lacks_memory_once)
    with pytest.raises(SteeringError, match="buffer"):
        path.repair()
    path.repair()
    assert '"v0"' in node.run(f"nft list set {TABLE} links")


SERVICES = (
    Frontend("10.96.7.1", 80, Protocol.UDP),
    Frontend("10.96.7.2", 80, Protocol.UDP),
    Frontend("fd00:96::1", 80, Protocol.UDP),
)
SERVERS = (SocketAddress("127.0.0.1", 8080), SocketAddress("::1", 8080))
BOTH_FAMILIES = {
    frontend: KernelTarget(1, (EndpointChoice((SERVERS[frontend.family == 6],)),))
    for frontend in SERVICES
}


def test_kernel_path_connections_are_counted_per_frontend_without_drift(node, path, dial):
    web, cart, six = SERVICES
    ports = replace(cart, port=30000, last=30100)
    path.load({**BOTH_FAMILIES, ports: BOTH_FAMILIES[cart]})
    assert path.connections() == dict.fromkeys((*SERVICES, ports), 0)
    dial(web, 3)
    dial(six, 2)
    dial(ports, 4)
    assert path.connections() == {web: 3, cart: 0, six: 2, ports: 4}
    assert path.repair() == 0
    assert "counter packets 3" in node.run(f"nft list set {TABLE} counted4")


def test_connection_counts_survive_endpoint_and_path_changes_and_rewrites(node, path, dial):
    web, cart, six = SERVICES
    path.load(BOTH_FAMILIES)
    dial(web, 3)
    path.change({web: KernelTarget(1, (EndpointChoice(SERVERS[:1] * 2),))})
    dial(web)
    path.change({web: None})
    dial(web)
    path.change({web: BOTH_FAMILIES[web]})
    dial(web)
    node.run(f"nft flush map {TABLE} choices4")
    assert path.repair() > 0
    # The new count exceeds the old count: a restarted counter isn't always lower.
    dial(web, 9)
    assert path.connections() == {web: 14, cart: 0, six: 0}
    node.run("nft flush ruleset")
    assert path.repair() > 0
    dial(web)
    assert path.connections() == {web: 15, cart: 0, six: 0}
    path.change({web: None}, [web])
    assert path.connections() == {cart: 0, six: 0}
    path.change({web: BOTH_FAMILIES[web]})
    dial(web)
    assert path.connections() == {web: 1, cart: 0, six: 0}


def test_connection_counts_survive_a_rewrite_after_a_rejected_link(node, path, dial, monkeypatch):
    web, *_ = SERVICES
    path.load(BOTH_FAMILIES)
    dial(web, 3)
    node.run("ip link add v0 type veth; ip link set v0 up")
    commit, calls = Ruleset.commit, count(1)

    def refuse_twice(ruleset, messages):
        # The first call adds only the element, the second call repairs all differences.
        if next(calls) <= 2:
            raise NftablesError(errno.ENOMEM, 0)
        commit(ruleset, messages)

    monkeypatch.setattr(Ruleset, "commit", refuse_twice)
    assert path.repair() == 0
    assert path.connections()[web] == 3


@pytest.mark.parametrize("drift", ["", f"nft add chain {TABLE} another"])
def test_a_frontend_with_an_undone_first_change_has_no_counter(node, path, dial, drift):
    web, cart, _ = SERVICES
    path.load({web: BOTH_FAMILIES[web]})
    path.change({cart: BOTH_FAMILIES[cart]})
    dial(cart)
    node.run(drift or "true")
    path.undo({cart: None}, [cart])
    assert path.connections() == {web: 0}
    path.change({cart: BOTH_FAMILIES[cart]})
    dial(cart)
    assert path.connections() == {web: 0, cart: 1}


def test_connection_counts_continue_after_an_undone_removal(path, dial, monkeypatch):
    web, cart, six = SERVICES
    path.load(BOTH_FAMILIES)
    dial(web, 3)
    dial(cart, 2)
    assert path.connections() == {web: 3, cart: 2, six: 0}
    path.change({cart: None})
    path.change({web: None}, [web, cart])
    path.undo({web: BOTH_FAMILIES[web]})
    dial(web)
    assert path.connections() == {web: 4, cart: 2, six: 0}
    # The count of CART is forgotten now, because its counter was removed earlier.
    path.change({}, [cart])
    assert path.connections() == {web: 4, six: 0}
    with monkeypatch.context() as broken:
        broken.setattr(x, "pick", lambda *_: x.expression("no_such_expression"))
        with pytest.raises(NftablesError):
            path.change({CART: BOTH})
    path.undo({CART: None})
    assert path.connections() == {web: 4, six: 0}


@pytest.mark.parametrize("more", [2, 5])
def test_connections_are_counted_once_if_the_reply_to_a_repair_is_lost(
    node, path, dial, monkeypatch, more
):
    web, *_ = SERVICES
    path.load(BOTH_FAMILIES)
    dial(web, 3)
    node.run(f"nft flush chain {TABLE} prerouting")
    commit = Ruleset.commit

    def commit_without_an_answer(ruleset, messages):
        commit(ruleset, messages)
        raise NftablesError(errno.ENOBUFS, 0, is_certain=False)

    with monkeypatch.context() as patched:
        patched.setattr(Ruleset, "commit", commit_without_an_answer)
        with pytest.raises(NftablesError, match="buffer"):
            path.repair()
    dial(web, more)
    assert path.repair() == 0
    assert path.connections()[web] == 3 + more


def test_connection_counts_of_another_run_are_not_adopted(path, dial):
    web, *_ = SERVICES
    path.load(BOTH_FAMILIES)
    dial(web, 3)
    with closing(KernelPath("")) as successor:
        successor.load(BOTH_FAMILIES)
        assert successor.connections() == dict.fromkeys(SERVICES, 0)


@pytest.mark.parametrize(
    "counter",
    [
        pytest.param(x.expression("no_such_expression", kind=17), id="refused"),
        pytest.param(b"", id="ignored"),
    ],
)
def test_connections_are_forwarded_but_not_counted_without_counter_support(
    node, path, dial, monkeypatch, counter
):
    monkeypatch.setattr(writer, "counter", lambda _kind: counter)
    web, *_ = SERVICES
    path.load(BOTH_FAMILIES)
    dial(web)
    assert path.connections() is None
    assert path.repair() == 0
    assert "counter" not in node.run(f"nft list set {TABLE} counted4")
    node.run("nft flush ruleset")
    assert path.repair() > 0
    assert path.connections() is None


def test_affinity_entries_survive_endpoint_changes_and_are_not_drift(node, path):
    def pinned(*endpoints):
        return KernelTarget(1, (EndpointChoice(endpoints),), Affinity("shop/web", 60))

    path.load({WEB: pinned(A, B), CART: pinned(A, B)})
    chains = node.run(f"nft list chains {TABLE.split()[0]} | grep -c -- -to-")
    assert chains.strip() == "2"
    number = node.run("nft list chains inet").partition("-to-")[2].split()[0]
    node.run(f"nft 'add element {TABLE} pins4 {{ 10.1.0.2 . {number} timeout 60s }}'")
    assert path.repair() == 0
    path.change({WEB: pinned(B), CART: pinned(B)})
    assert path.in_force() == {WEB: (B,), CART: (B,)}
    assert "10.1.0.2" in node.run(f"nft list set {TABLE} pins4")
    assert path.repair() == 0
    # An element that another program removed is restored, and the affinity entries stay.
    node.run(f"nft flush map {TABLE} choices4")
    assert path.repair() == 2
    assert "10.1.0.2" in node.run(f"nft list set {TABLE} pins4")


def test_the_sets_of_clients_with_affinity_have_a_maximum_size(node, path):
    path.load({WEB: replace(BOTH, affinity=Affinity("shop/web", 60))})
    for pins, address in (("pins4", "ipv4_addr"), ("pins6", "ipv6_addr")):
        set_of = f"type {address} . mark\n\t\tsize 262144\n\t\tflags dynamic,timeout\n"
        assert set_of in node.run(f"nft list set {TABLE} {pins}")


def test_clients_beyond_the_limit_are_served_without_affinity(node, path, dial, monkeypatch):
    monkeypatch.setattr(kernel_rules, "PINS_MAX", 2)
    web, *_ = SERVICES
    path.load({web: KernelTarget(1, (EndpointChoice(SERVERS[:1]),), Affinity("shop/web", 60))})
    pins = ("10.1.0.1 . 99999 timeout 60s", "10.1.0.2 . 99999 timeout 60s")
    node.run(f"nft 'add element {TABLE} pins4 {{ {', '.join(pins)} }}'")
    dial(web, 4)
    assert path.connections() == {web: 4}
    assert node.run(f"nft list set {TABLE} pins4").count("timeout 1m expires") == len(pins)
    assert path.repair() == 0


@pytest.fixture
def crowded(node, monkeypatch):
    """Return a function that makes each transaction collide with another program's."""
    commit, numbers = Ruleset.commit, count()

    def begin():
        def commit_among_others(ruleset, messages):
            node.run(f"nft add table ip other{next(numbers)}")
            commit(ruleset, messages)

        monkeypatch.setattr(Ruleset, "commit", commit_among_others)

    return begin


@pytest.mark.parametrize("pods", [2, 30], ids=["few-new-chains", "many-new-chains"])
def test_other_programs_transactions_delete_no_affinity_entries_and_are_not_drift(
    node, path, crowded, pods
):
    web, cart = Affinity("shop/web", 60), Affinity("shop/cart", 60)
    many = tuple(SocketAddress(f"10.244.2.{number}", 8080) for number in range(pods))
    crowded()
    path.load({WEB: KernelTarget(1, (EndpointChoice((A, B)),), web)})
    number = node.run("nft list chains inet").partition("-to-")[2].split()[0]
    node.run(f"nft 'add element {TABLE} pins4 {{ 10.1.0.2 . {number} timeout 60s }}'")
    handle = node.run(f"nft -a list table {TABLE} | head -n 1")
    path.change({CART: KernelTarget(1, (EndpointChoice(many),), cart)})
    path.change({CART: KernelTarget(1, (EndpointChoice(many[:1]),), cart)})
    assert path.repair() == 0
    path.change({CART: ONE})
    path.change({CART: None})
    assert path.repair() == 0
    assert path.in_force() == {WEB: (A, B)}
    assert "10.1.0.2" in node.run(f"nft list set {TABLE} pins4")
    assert node.run(f"nft -a list table {TABLE} | head -n 1") == handle


def test_a_change_reads_no_rules_of_other_services_and_is_not_drift(node, path, monkeypatch):
    """Reading the rules of 3,000 endpoints with affinity takes 0.6 s."""
    read, rules = [], Ruleset.rules

    def note(*given):
        listed = rules(*given)
        read.extend(listed)
        return listed

    many = tuple(SocketAddress(f"10.244.2.{number}", 8080) for number in range(50))
    path.load({CART: KernelTarget(1, (EndpointChoice(many),), Affinity("shop/cart", 60))})
    path.change({WEB: ONE})
    monkeypatch.setattr(Ruleset, "rules", note)
    path.change({WEB: BOTH})
    assert [rule.chain.partition("-of-")[2] for rule in read] == ["2-ip"]
    node.run(f"nft add element {TABLE} links '{{ 77 }}'")
    # Only the element differs: the parts that weren't read are as assumed.
    assert path.repair() == 1


DNS = Frontend("10.96.0.10", 53, Protocol.UDP)


def test_increases_of_a_counter_are_added_to_the_connection_count():
    counts = Counts()
    for number in (3, 3, 7):
        counts.note(WEB, number)
    counts.note(CART, 0)
    assert counts.totals == {WEB: 7, CART: 0}


def test_a_reset_counter_adds_its_whole_value():
    counts = Counts()
    counts.note(WEB, 7)
    # A lower value means that another program has reset the counter.
    counts.note(WEB, 2)
    assert counts.totals == {WEB: 9}
    counts.note(CART, 3)
    counts.begin_anew([WEB, DNS])
    counts.note(WEB, 5)
    counts.note(CART, 5)
    assert counts.totals == {WEB: 14, CART: 5}


def test_the_connection_count_of_a_removed_frontend_restarts_at_zero():
    counts = Counts()
    counts.note(WEB, 7)
    counts.forget([WEB, CART])
    assert counts.totals == {}
    counts.note(WEB, 8)
    assert counts.totals == {WEB: 8}
