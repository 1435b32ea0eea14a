import pytest

from userspace_proxy.cluster.host_table import (
    KEEP_S,
    RETRY_MAX_S,
    RETRY_S,
    TTL_MAX_S,
    TTL_MIN_S,
    HostTable,
)
from userspace_proxy.model import IPFamily
from userspace_proxy.model.endpoint_names import Lookup, NameProblem, NameState

V4, V6 = IPFamily.IPV4, IPFamily.IPV6
DB = "db.example.com"
ONE, TWO = ("203.0.113.1",), ("203.0.113.2",)
GONE = Lookup({V4: ()}, why="no such name")


class Clock:
    """A host table, and its clock of monotonic seconds, which a test advances."""

    def __init__(self):
        self.now = 100.0
        self.table = HostTable()

    def learn(self, lookup, host=DB):
        assert self.table.take(self.now) == (host, lookup_families(self.table, host))
        return self.table.learn(host, lookup, self.now)

    @property
    def wait_s(self):
        return self.table.next_at() - self.now


def lookup_families(table, host):
    return table._hosts[host].families


@pytest.fixture
def clock():
    made = Clock()
    made.table.want(DB, [V4], ["shop"])
    return made


def found(ips=ONE, ttl_s=30.0):
    return Lookup({V4: ips}, ttl_s)


def test_a_new_name_is_due_immediately(clock):
    assert clock.table.problem(DB) == NameProblem(DB, NameState.PENDING)
    assert DB in clock.table
    assert clock.table.take(clock.now) == (DB, (V4,))


def test_a_name_is_looked_up_once_at_a_time(clock):
    clock.table.take(clock.now)
    assert clock.table.take(clock.now) is None
    assert clock.table.next_at() is None


@pytest.mark.parametrize(
    ("ttl_s", "wait_s"),
    [(0.0, TTL_MIN_S), (30.0, 30.0), (86400.0, TTL_MAX_S)],
)
def test_the_ttl_is_clamped(clock, ttl_s, wait_s):
    assert clock.learn(found(ttl_s=ttl_s))
    assert clock.table.addresses(DB, V4) == ONE
    assert clock.table.problem(DB) is None
    assert clock.wait_s == wait_s
    assert clock.table.take(clock.now + wait_s - 0.1) is None


def test_a_never_resolved_name_is_retried_with_backoff(clock):
    waits = []
    for _ in range(6):
        clock.learn(GONE)
        waits.append(clock.wait_s)
        clock.now += clock.wait_s
    assert waits == [RETRY_S, 10, 20, 40, RETRY_MAX_S, RETRY_MAX_S]
    assert clock.table.problem(DB) == NameProblem(
        DB, NameState.UNRESOLVED, "no such name", since=100
    )
    clock.learn(found())
    clock.now += clock.wait_s
    clock.learn(GONE)
    assert clock.wait_s == RETRY_S


def test_an_unresolvable_name_keeps_its_last_addresses_for_an_hour(clock):
    clock.learn(found())
    clock.now += 30
    began = clock.now
    assert clock.learn(GONE)
    stale = NameProblem(DB, NameState.STALE, "no such name", since=began)
    assert clock.table.problem(DB) == stale
    while clock.now + clock.wait_s < began + KEEP_S:
        clock.now += clock.wait_s
        assert not clock.learn(GONE)
        assert clock.table.addresses(DB, V4) == ONE
    clock.now += clock.wait_s
    assert clock.now == began + KEEP_S
    assert clock.learn(GONE)
    assert clock.table.addresses(DB, V4) == ()
    assert clock.table.problem(DB).state is NameState.UNRESOLVED


def test_a_family_without_a_response_keeps_its_addresses(clock):
    clock.table.want(DB, [V4, V6], ["shop"])
    clock.learn(Lookup({V4: ONE, V6: ("2001:db8::1",)}, 30))
    clock.now += 30
    clock.learn(Lookup({V4: TWO}, 30))
    assert clock.table.addresses(DB, V6) == ("2001:db8::1",)
    clock.now += 30
    clock.learn(Lookup({V4: TWO, V6: ()}, 30))
    assert clock.table.addresses(DB, V6) == ()


def test_a_family_that_is_requested_later_is_looked_up_immediately(clock):
    clock.learn(found())
    clock.table.want(DB, [V4], ["shop", "web"])
    assert clock.table.take(clock.now) is None
    clock.table.want(DB, [V4, V6], ["shop"])
    assert clock.table.take(clock.now) == (DB, (V4, V6))


def test_a_family_requested_during_a_lookup_is_looked_up_afterwards(clock):
    clock.table.take(clock.now)
    clock.table.want(DB, [V4, V6], ["shop"])
    clock.table.learn(DB, found(), clock.now)
    assert clock.table.take(clock.now) == (DB, (V4, V6))


def test_a_family_that_is_no_longer_requested_has_no_addresses(clock):
    clock.table.want(DB, [V4, V6], ["shop"])
    clock.learn(Lookup({V4: ONE, V6: ("2001:db8::1",)}, 30))
    clock.table.want(DB, [V4], ["shop"])
    clock.now += 30
    clock.learn(found())
    assert clock.table.addresses(DB, V6) == ()


def test_a_forgotten_name_is_not_looked_up(clock):
    clock.table.forget(DB)
    assert clock.table.take(clock.now) is None
    assert clock.table.addresses(DB, V4) == ()
    assert clock.table.problem(DB).state is NameState.PENDING


def test_a_response_for_a_forgotten_name_has_no_effect_on_a_later_lookup(clock):
    clock.table.take(clock.now)
    clock.table.forget(DB)
    assert not clock.table.learn(DB, found(), clock.now)
    clock.table.want(DB, [V4], ["shop"])
    assert clock.table.take(clock.now) == (DB, (V4,))


def test_addresses_of_an_earlier_run_are_used_until_the_first_response(clock):
    clock.table.seed(DB, V4, ONE)
    clock.table.seed(DB, V6, ["2001:db8::1"])
    assert clock.table.addresses(DB, V4) == ONE
    assert clock.table.addresses(DB, V6) == ("2001:db8::1",)
    assert clock.table.problem(DB) is None
    assert clock.learn(GONE)
    assert clock.table.problem(DB).state is NameState.STALE
    clock.table.seed(DB, V4, TWO)
    assert clock.table.addresses(DB, V4) == ONE


def test_has_ready_is_true_until_all_due_names_are_taken(clock):
    clock.table.want("db2.example.com", [V4], ["shop"])
    assert clock.table.take(clock.now) is not None
    assert clock.table.has_ready
    assert clock.table.take(clock.now) is not None
    assert clock.table.take(clock.now) is None
    assert not clock.table.has_ready
