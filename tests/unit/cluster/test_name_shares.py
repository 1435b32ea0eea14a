"""Which names are looked up where there is no room for all."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from userspace_proxy.cluster import name_shares
from userspace_proxy.cluster.name_shares import NameClaim, NameShares
from userspace_proxy.model import ServiceKey

A, B, C = (ServiceKey("shop", name) for name in "abc")
WEB = ServiceKey("web", "db")


def change(shares, asked):
    """Take all turns at once, and return what they return."""
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


def test_with_room_all_names_are_looked_up(shares):
    assert change(shares, {A: names(2), WEB: names(1)}) == {
        NameClaim(A, "db-0.example.com"),
        NameClaim(A, "db-1.example.com"),
        NameClaim(WEB, "db-0.example.com"),
    }
    assert shares.of(A) == ("db-0.example.com", "db-1.example.com")
    assert shares.users == {"db-0.example.com": {A, WEB}, "db-1.example.com": {A}}
    assert change(shares, {A: names(2)}) == set()


def test_names_that_are_not_asked_for_any_more_are_not_looked_up(shares):
    change(shares, {A: names(2), WEB: names(1)})
    assert change(shares, {A: names(1)}) == {NameClaim(A, "db-1.example.com")}
    assert change(shares, {A: [], WEB: []}) == {
        NameClaim(A, "db-0.example.com"),
        NameClaim(WEB, "db-0.example.com"),
    }
    assert shares.users == {}


def test_the_first_names_of_a_service_are_looked_up(monkeypatch):
    shares = limit(monkeypatch, service=2)
    change(shares, {A: names(3)})
    assert shares.of(A) == tuple(names(2))


def test_a_namespace_has_a_bound_and_what_is_left_out_follows(monkeypatch):
    shares = limit(monkeypatch, namespace=2)
    change(shares, {A: names(1), B: names(2), WEB: names(1)})
    assert [len(shares.of(key)) for key in (A, B, WEB)] == [1, 1, 1]
    assert change(shares, {A: []}) == {
        NameClaim(A, "db-0.example.com"),
        NameClaim(B, "db-1.example.com"),
    }


def test_a_service_with_too_many_names_does_not_keep_others_from_room(monkeypatch):
    shares = limit(monkeypatch, service=2, namespace=3)
    change(shares, {A: names(9), B: names(1), C: names(1)})
    assert [len(shares.of(key)) for key in (A, B, C)] == [1, 1, 1]
    change(shares, {B: []})
    assert [len(shares.of(key)) for key in (A, C)] == [2, 1]


def test_many_namespaces_with_many_names_leave_room_for_another_one(monkeypatch):
    shares = limit(monkeypatch, node=20)
    for tenant in range(10):
        change(shares, {ServiceKey(f"tenant-{tenant}", "db"): names(4)})
    change(shares, {WEB: names(1)})
    assert shares.of(WEB) == tuple(names(1))


def test_the_last_names_of_the_largest_namespace_give_way(monkeypatch):
    shares = limit(monkeypatch, node=4)
    change(shares, {A: names(1)})
    change(shares, {B: names(3)})
    assert change(shares, {WEB: names(4)}) == {
        NameClaim(B, "db-1.example.com"),
        NameClaim(B, "db-2.example.com"),
        NameClaim(WEB, "db-0.example.com"),
        NameClaim(WEB, "db-1.example.com"),
    }
    change(shares, {A: []})
    assert [len(shares.of(key)) for key in (B, WEB)] == [2, 2]


KEYS = [ServiceKey(namespace, name) for namespace in "wxyz" for name in "ab"]
CHANGES = st.lists(st.dictionaries(st.sampled_from(KEYS), st.integers(0, 4)), max_size=8)


@settings(max_examples=200)
@given(CHANGES)
def test_after_any_changes_the_shares_are_equal(changes):
    with pytest.MonkeyPatch.context() as monkeypatch:
        shares = limit(monkeypatch, service=3, namespace=5, node=9)
        asked = dict.fromkeys(KEYS, 0)
        for counts in changes:
            before = claims_of(shares)
            moved = change(shares, {key: names(count) for key, count in counts.items()})
            asked.update(counts)
            assert before ^ claims_of(shares) == moved
            check(shares, asked)


def claims_of(shares):
    return {NameClaim(key, host) for key in KEYS for host in shares.of(key)}


def check(shares, asked):
    claims = claims_of(shares)
    assert claims == {NameClaim(key, host) for host, keys in shares.users.items() for key in keys}
    assert len(claims) <= 9
    have = Counter(claim.service.namespace for claim in claims)
    for key, count in asked.items():
        mine = have[key.namespace]
        assert mine <= 5
        if len(shares.of(key)) < min(count, 3):
            is_fair = len(claims) == 9 and max(have.values()) <= mine + 1
            assert mine == 5 or is_fair
