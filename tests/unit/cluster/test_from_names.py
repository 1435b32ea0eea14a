"""Tests of deriving endpoints by name from a source's snapshots and DNS responses."""

from dataclasses import replace

import pytest

from userspace_proxy.cluster import Snapshot, from_names, name_shares
from userspace_proxy.cluster.forbidden import ClusterNetworks, Forbidden, ForbiddenAddresses
from userspace_proxy.cluster.from_names import EndpointsByName
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    Node,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.endpoint_names import EndpointName, Lookup, NameSlice, NameState
from userspace_proxy.model.notes import NoteKind

from .named import DB, NETWORKS, V4, V6, Proxy

GONE = Lookup({V4: ()}, why="no such name")


@pytest.fixture
def proxy():
    made = Proxy()
    made.put()
    made.derive()
    return made


def test_all_addresses_of_an_endpoint_name_become_endpoints(proxy):
    assert proxy.problems() == [(NameState.PENDING, "")]
    proxy.answer("203.0.113.1", "203.0.113.2")
    (item,) = proxy.state().slices
    assert [endpoint.ip for endpoint in item.endpoints] == ["203.0.113.1", "203.0.113.2"]
    assert item.ports == (SlicePort("", 5433, "TCP"),)
    assert (item.family, item.service) == (V4, ServiceKey("shop", "db"))
    assert item.problems == ()


def test_a_family_without_an_address_is_reported_in_its_slice():
    proxy = Proxy()
    proxy.put(cluster_ips=("10.96.0.1", "fd00::1"))
    proxy.derive()
    proxy.answer("203.0.113.1")
    assert proxy.problems() == [(NameState.NO_ADDRESS, "IPv6")]


def test_endpoints_follow_dns_changes(proxy):
    proxy.answer("203.0.113.1")
    revision = proxy.snapshot.revision
    proxy.answer("203.0.113.2")
    assert proxy.ips() == ["203.0.113.2"]
    assert proxy.snapshot.revision == revision + 1


def test_before_the_first_lookup_a_name_is_shown_as_pending(proxy):
    before = from_names.before_lookups(proxy.source, ("example.com",))
    assert before.services == proxy.snapshot.services


def test_a_lookup_with_an_equal_result_creates_no_snapshot(proxy):
    proxy.answer("203.0.113.1")
    before = proxy.snapshot
    proxy.answer("203.0.113.1")
    assert proxy.snapshot is before
    assert proxy.endpoints.derive(proxy.store.snapshot()) is before


def test_an_unresolvable_name_keeps_its_last_addresses(proxy):
    proxy.answer("203.0.113.1")
    proxy.answer(lookup=GONE)
    assert proxy.ips() == ["203.0.113.1"]
    assert proxy.problems() == [(NameState.STALE, "no such name")]


def test_a_forbidden_name_is_not_resolved():
    proxy = Proxy("example.org")
    proxy.put()
    proxy.derive()
    assert proxy.endpoints.hosts.take(0.0) is None
    assert proxy.problems() == [(NameState.NOT_ALLOWED, "")]


class TestUnknownNodeAddresses:
    @pytest.fixture
    def proxy(self):
        made = Proxy(networks=ClusterNetworks(("10.244.0.0/16",), is_shared=True))
        made.put()
        made.derive()
        return made

    def test_names_are_not_resolved_until_node_addresses_are_known(self, proxy):
        assert proxy.endpoints.hosts.take(0.0) is None
        assert proxy.problems() == [(NameState.NODES_UNKNOWN, "")]
        proxy.store.set_node_addresses(frozenset({"203.0.113.2"}))
        proxy.derive()
        proxy.answer("203.0.113.1", "203.0.113.2")
        assert proxy.ips() == ["203.0.113.1"]

    def test_endpoints_by_name_get_no_clients_once_node_addresses_are_unknown(self, proxy):
        proxy.store.set_node_addresses(frozenset())
        proxy.derive()
        proxy.answer("203.0.113.1")
        proxy.store.set_node_addresses(None)
        proxy.derive()
        assert proxy.ips() == []
        assert proxy.problems() == [(NameState.NODES_UNKNOWN, "")]


def test_only_the_first_three_forbidden_addresses_are_listed(proxy):
    proxy.answer(*(f"127.0.0.{n}" for n in range(1, 10)))
    assert proxy.ips() == []
    assert [state for state, _ in proxy.problems()] == [NameState.FORBIDDEN] * 3


def test_forbidden_last_addresses_are_not_used(proxy):
    proxy.answer("127.0.0.1")
    proxy.answer(lookup=GONE)
    assert [state for state, _ in proxy.problems()] == [NameState.FORBIDDEN]


def test_a_lookup_that_ends_between_two_turns_is_not_lost(proxy):
    proxy.put("other", "other.example.com")
    for _ in proxy.endpoints.turns(proxy.store.snapshot()):
        if taken := proxy.endpoints.hosts.take(0.0):
            proxy.endpoints.learn(taken[0], Lookup({V4: ("203.0.113.1",)}, 30), 0.0)
    proxy.derive()
    assert proxy.ips("db") == proxy.ips("other") == ["203.0.113.1"]


def test_an_address_assigned_to_this_node_stops_being_an_endpoint(proxy):
    proxy.answer("203.0.113.1")
    proxy.own.add("203.0.113.1")
    proxy.endpoints.look_again()
    proxy.derive()
    assert proxy.ips() == []
    assert proxy.problems() == [
        (NameState.FORBIDDEN, f"203.0.113.1, which is {Forbidden.THIS_NODE}")
    ]


def test_an_address_assigned_to_a_service_stops_being_an_endpoint(proxy):
    proxy.answer("172.20.0.7")
    assert proxy.ips() == ["172.20.0.7"]
    other = Service(ServiceKey("shop", "web"), (), cluster_ips=("172.20.0.7",))
    proxy.store.put_service(other)
    proxy.derive()
    assert proxy.ips() == []
    proxy.store.delete_service(other.key)
    proxy.derive()
    assert proxy.ips() == ["172.20.0.7"]


def test_a_nat64_address_of_a_service_is_not_an_endpoint():
    proxy = Proxy()
    proxy.put(cluster_ips=("fd00::1",))
    proxy.derive()
    proxy.answer("64:ff9b::ac14:7")
    assert proxy.ips() == ["64:ff9b::ac14:7"]
    proxy.store.put_service(Service(ServiceKey("shop", "web"), (), cluster_ips=("172.20.0.7",)))
    proxy.derive()
    assert proxy.ips() == []


def test_an_address_assigned_to_a_node_stops_being_an_endpoint(proxy):
    proxy.answer("203.0.113.1")
    proxy.store.set_node(Node("node-1", ("203.0.113.1",)))
    proxy.derive()
    assert proxy.ips() == []


def test_a_snapshot_without_names_is_returned_unchanged():
    proxy = Proxy()
    proxy.store.put_service(Service(ServiceKey("shop", "web"), (), cluster_ips=("10.96.0.9",)))
    snapshot = proxy.store.snapshot()
    assert proxy.endpoints.derive(snapshot) is snapshot
    assert proxy.endpoints.derive(snapshot) is snapshot
    proxy.store.delete_service(ServiceKey("shop", "web"))
    snapshot = proxy.store.snapshot()
    assert proxy.endpoints.derive(snapshot) is snapshot


def test_after_the_last_name_is_removed_no_lookup_is_pending(proxy):
    proxy.answer("203.0.113.1")
    revision = proxy.snapshot.revision
    proxy.store.delete_service(ServiceKey("shop", "db"))
    proxy.derive()
    assert len(proxy.snapshot.services) == 0
    assert proxy.snapshot.revision > revision
    assert proxy.endpoints.hosts.next_at() is None


def test_unchanged_services_stay_the_same_objects(proxy):
    proxy.answer("203.0.113.1")
    before = proxy.state()
    proxy.store.put_service(Service(ServiceKey("shop", "web"), (), cluster_ips=("10.96.0.9",)))
    proxy.derive()
    web = proxy.state("web")
    assert proxy.state() is before
    proxy.answer("203.0.113.2")
    assert proxy.state("web") is web


def test_two_services_share_a_lookup(proxy):
    proxy.put("other", cluster_ips=("fd00::1",))
    proxy.derive()
    proxy.answer("203.0.113.1", "2001:db8::1")
    assert (proxy.ips(), proxy.ips("other")) == (["203.0.113.1"], ["2001:db8::1"])
    proxy.store.delete_service(ServiceKey("shop", "db"))
    proxy.derive()
    proxy.now += 1000
    assert proxy.endpoints.hosts.take(proxy.now) == (DB, (V6,))


def test_a_name_that_was_replaced_is_no_longer_resolved(proxy):
    proxy.answer("203.0.113.1")
    proxy.put("db", "db2.example.com")
    proxy.derive()
    assert DB not in proxy.endpoints.hosts
    proxy.answer("203.0.113.2", host="db2.example.com")
    assert proxy.ips() == ["203.0.113.2"]


def test_addresses_inherit_weight_priority_and_readiness_of_their_name():
    proxy = Proxy()
    proxy.store.put_service(
        Service(
            ServiceKey("shop", "db"), (ServicePort("", 5432, "TCP"),), cluster_ips=("10.96.0.1",)
        )
    )
    written = EndpointSlice(
        SliceKey("shop", "db-x"),
        ServiceKey("shop", "db"),
        V4,
        (SlicePort("", 5433, "TCP"),),
        (Endpoint(DB, weight=7, priority=1, ready=False),),
        notes=(NoteKind.TOO_MANY_HINTS(1),),
    )
    proxy.store.put_slice(NameSlice.of(written))
    proxy.derive()
    proxy.answer("203.0.113.1")
    (item,) = proxy.state().slices
    assert item.endpoints == (Endpoint("203.0.113.1", weight=7, priority=1, ready=False, host=DB),)
    assert item.notes == (NoteKind.TOO_MANY_HINTS(1),)
    assert proxy.state().service.handling.names == (EndpointName(DB, 5433),)


def test_address_slices_are_kept_beside_resolved_names(proxy):
    item = EndpointSlice(
        SliceKey("shop", "a"), ServiceKey("shop", "db"), V4, (), (Endpoint("192.0.2.1"),)
    )
    proxy.store.put_slice(item)
    proxy.derive()
    proxy.answer("203.0.113.1")
    assert proxy.ips() == ["192.0.2.1", "203.0.113.1"]
    # The data plane checks only these addresses against the addresses of the node.
    assert proxy.state().service.handling.found_by_name == ("203.0.113.1",)


def test_unusable_endpoint_names_become_a_note_on_the_service():
    proxy = Proxy()
    proxy.put(selector=(("app", "db"),))
    proxy.derive()
    assert proxy.state().slices == ()
    assert [note.kind for note in proxy.state().service.notes] == [NoteKind.NAMES_BESIDE_SELECTOR]


def test_after_a_restart_the_saved_addresses_are_used(proxy):
    proxy.answer("203.0.113.1")
    kept = proxy.snapshot
    plain = {
        key: replace(
            state,
            slices=tuple(
                EndpointSlice(s.key, s.service, s.family, s.ports, s.endpoints)
                for s in state.slices
            ),
        )
        for key, state in kept.services.items()
    }
    again = Proxy()
    again.derive(Snapshot(plain))
    assert again.ips() == ["203.0.113.1"]
    assert again.problems() == []
    again.answer(lookup=GONE)
    assert again.ips() == ["203.0.113.1"]
    # The source lists the Service without slices, and look-ups of its names continue.
    again.put()
    again.derive()
    assert again.ips() == ["203.0.113.1"]


def test_after_a_restart_saved_addresses_of_forbidden_names_are_not_used(proxy):
    proxy.answer("203.0.113.1")
    again = Proxy("example.org")
    again.derive(proxy.snapshot)
    assert (again.ips(), again.problems()) == ([], [(NameState.NOT_ALLOWED, "")])


def test_a_name_that_is_not_allowed_shows_the_reason():
    proxy = Proxy()
    proxy.put("db", "a.example.org", "b.example.org", DB)
    proxy.derive()
    proxy.answer("203.0.113.1")
    assert proxy.ips() == ["203.0.113.1"]
    assert proxy.problems() == [(NameState.NOT_ALLOWED, "")]


class TestBounds:
    def test_the_number_of_names_per_service_is_bounded(self, monkeypatch):
        monkeypatch.setattr(name_shares, "NAMES_MAX", 1)
        proxy = Proxy()
        proxy.put("db", DB, "db2.example.com")
        proxy.derive()
        assert proxy.problems() == [(NameState.PENDING, ""), (NameState.TOO_MANY, "")]

    def test_the_number_of_name_uses_per_service_is_bounded(self, monkeypatch):
        monkeypatch.setattr(from_names, "USES_MAX", 3)
        proxy = Proxy()
        proxy.put()
        key = ServiceKey("shop", "db")
        for number in range(4):
            item = EndpointSlice(SliceKey("shop", f"x{number}"), key, V4, (), (Endpoint(DB),))
            proxy.store.put_slice(NameSlice.of(item))
        proxy.derive()
        proxy.answer("203.0.113.1")
        assert proxy.ips() == ["203.0.113.1"] * 3
        assert proxy.problems() == [(NameState.TOO_MANY, "")] * 2

    def test_a_name_displaced_by_another_namespace_is_shown_until_there_is_room(self, monkeypatch):
        monkeypatch.setattr(name_shares, "NODE_MAX", 2)
        proxy = Proxy()
        proxy.put("a", "a.example.com")
        proxy.put("b", "b.example.com")
        proxy.derive()
        proxy.put("c", "c.example.com", namespace="other")
        proxy.derive()
        assert proxy.problems("c", "other") == [(NameState.PENDING, "")]
        assert proxy.problems("b") == [(NameState.TOO_MANY, "")]
        assert "b.example.com" not in proxy.endpoints.hosts
        proxy.store.delete_service(ServiceKey("shop", "a"))
        proxy.derive()
        assert proxy.problems("b") == [(NameState.PENDING, "")]
        assert "b.example.com" in proxy.endpoints.hosts


BAD = ServiceKey("shop", "bad")


class Unanswerable(set):
    """A set of addresses; testing whether a member is in it raises an exception."""

    def __contains__(self, ip):
        if super().__contains__(ip):
            raise ZeroDivisionError("a bug")
        return False


@pytest.fixture
def buggy():
    made = Proxy()
    made.own = Unanswerable({"203.0.113.66"})
    made.endpoints = EndpointsByName(
        ("example.com",), ForbiddenAddresses(NETWORKS, made.own.__contains__)
    )
    made.put()
    made.put("bad", "bad.example.com")
    made.put("other", "other.example.com")
    made.derive()
    return made


def test_an_exception_in_one_service_affects_only_its_endpoints_by_name(buggy):
    item = EndpointSlice(SliceKey("shop", "a"), BAD, V4, (), (Endpoint("192.0.2.1"),))
    buggy.store.put_slice(item)
    for _ in range(3):
        host, _ = buggy.endpoints.hosts.take(0.0)
        ip = "203.0.113.66" if host == "bad.example.com" else "203.0.113.1"
        buggy.endpoints.learn(host, Lookup({V4: (ip,)}, 30), 0.0)
    buggy.derive()
    assert buggy.ips("db") == buggy.ips("other") == ["203.0.113.1"]
    assert buggy.ips("bad") == ["192.0.2.1"]
    ((key, bug),) = buggy.endpoints.bugs.items()
    assert key == BAD
    assert bug.startswith(f"ZeroDivisionError('a bug') at {__name__}:")
    note = NoteKind.NAMES_BUG(bug)
    before = buggy.state("bad")
    assert before.service.notes == (note,)
    buggy.endpoints.look_again()
    buggy.derive()
    assert buggy.state("bad") is before


def test_a_failed_service_is_retried_at_the_next_lookup(buggy):
    hosts = {buggy.endpoints.hosts.take(0.0)[0] for _ in range(3)}
    for ip in ("203.0.113.66", "203.0.113.2"):
        for host in hosts:
            buggy.endpoints.learn(host, Lookup({V4: (ip,)}, 30), 0.0)
        buggy.derive(buggy.source)
    assert buggy.ips("bad") == ["203.0.113.2"]
    assert buggy.endpoints.bugs == {}
    assert buggy.state("bad").service.notes == ()


@pytest.mark.parametrize("step", ["read_request", "is_below", "derived_key"])
def test_a_bug_in_any_step_for_one_service_does_not_affect_other_services(monkeypatch, step):
    real = getattr(from_names, step)

    def raise_for_bad(*args):
        if "bad" in repr(args):
            raise ZeroDivisionError("a bug")
        return real(*args)

    proxy = Proxy()
    proxy.put("bad", "bad.example.com")
    monkeypatch.setattr(from_names, step, raise_for_bad)
    proxy.derive()
    assert proxy.state("bad").slices == ()
    assert [*proxy.endpoints.bugs] == [BAD]
    proxy.put("db", DB)
    proxy.derive()
    proxy.endpoints.learn(DB, Lookup({V4: ("203.0.113.1",)}, 30), 0.0)
    proxy.derive(proxy.source)
    assert proxy.ips("db") == ["203.0.113.1"]
    assert proxy.state("bad").slices == ()
    assert [*proxy.endpoints.bugs] == [BAD]
    proxy.store.delete_service(BAD)
    proxy.derive()
    assert proxy.endpoints.bugs == {}


def test_a_failed_service_is_retried_when_it_changes(monkeypatch, buggy):
    with monkeypatch.context() as patch:
        patch.setattr(from_names, "read_request", lambda _: 1 // 0)
        buggy.put("late")
        buggy.derive()
        assert buggy.state("late").slices == ()
    buggy.put("late", "203.example.com")
    buggy.derive()
    assert buggy.problems("late") == [(NameState.PENDING, "")]
    assert buggy.endpoints.bugs == {}
