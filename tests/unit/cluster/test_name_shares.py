"""Tests of which names are looked up if there are too many."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userspace_proxy.cluster import name_shares
from userspace_proxy.cluster.name_shares import NameClaim, NameShares
from userspace_proxy.model import ServiceKey

A, B = (ServiceKey("shop", name) for name in "ab")
WEB = ServiceKey("web", "db")


def change(shares, asked):
    """Run all turns of a change, and return its result."""
    turns = shares.turns(asked)
    while True:
        try:
            next(turns)
        except StopIteration as end:
            return end.value


def names(count, prefix="db"):
    return [f"{prefix}-{number}.example.com" for number in range(count)]


@pytest.fixture
def shares():
    return NameShares()


def limit(monkeypatch, service=16, namespace=100, node=1000):
    monkeypatch.setattr(name_shares, "NAMES_MAX", service)
    monkeypatch.setattr(name_shares, "NAMESPACE_MAX", namespace)
    monkeypatch.setattr(name_shares, "NODE_MAX", node)
    return NameShares()


def test_below_the_limits_all_names_are_resolved(shares):
    assert change(shares, {A: names(2), WEB: names(1)}) == {
        NameClaim(A, "db-0.example.com"),
        NameClaim(A, "db-1.example.com"),
        NameClaim(WEB, "db-0.example.com"),
    }
    assert shares.of(A) == ("db-0.example.com", "db-1.example.com")
    assert shares.users == {"db-0.example.com": {A, WEB}, "db-1.example.com": {A}}
    assert change(shares, {A: names(2)}) == set()


def test_names_without_a_service_are_no_longer_resolved(shares):
    change(shares, {A: names(2), WEB: names(1)})
    assert change(shares, {A: names(1)}) == {NameClaim(A, "db-1.example.com")}
    assert change(shares, {A: [], WEB: []}) == {
        NameClaim(A, "db-0.example.com"),
        NameClaim(WEB, "db-0.example.com"),
    }
    assert shares.users == {}


def test_only_the_first_names_of_a_service_are_resolved(monkeypatch):
    shares = limit(monkeypatch, service=2)
    change(shares, {A: [*names(1), *names(3)]})
    assert shares.of(A) == tuple(names(2))


def test_names_omitted_at_a_namespaces_limit_are_resolved_once_other_names_are_removed(monkeypatch):
    shares = limit(monkeypatch, namespace=2)
    change(shares, {A: names(1), B: names(2), WEB: names(1)})
    assert [len(shares.of(key)) for key in (A, B, WEB)] == [1, 1, 1]
    assert change(shares, {A: []}) == {
        NameClaim(A, "db-0.example.com"),
        NameClaim(B, "db-1.example.com"),
    }
    shares = limit(monkeypatch, namespace=1)
    change(shares, {A: names(1), B: names(1)})
    has, lacks = (A, B) if shares.of(A) else (B, A)
    assert change(shares, {has: []}) == {NameClaim(key, *names(1)) for key in (has, lacks)}


KEYS = [ServiceKey(namespace, name) for namespace in "wxyz" for name in "ab"]
CHANGES = st.lists(st.dictionaries(st.sampled_from(KEYS), st.integers(0, 4)), max_size=8)


@settings(max_examples=200)
@given(CHANGES)
def test_the_resolved_names_equal_the_sum_of_all_reported_changes(changes):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shares, claims = limit(monkeypatch, service=3, namespace=5, node=9), set()
        for counts in changes:
            claims ^= change(shares, {key: names(count) for key, count in counts.items()})
            assert claims == {NameClaim(key, host) for key in KEYS for host in shares.of(key)}
            users = shares.users.items()
            assert claims == {NameClaim(key, host) for host, keys in users for key in keys}
