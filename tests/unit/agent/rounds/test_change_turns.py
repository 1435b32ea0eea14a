"""Which changes a round takes, of namespaces that change a little, much and all the time."""

import itertools
import math

import pytest

from userspace_proxy.agent.rounds.change_turns import ChangeTurns
from userspace_proxy.cluster import Store
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    ServiceKey,
    ServicePort,
    SliceKey,
)

from ...model.samples import service

MANY = 1_000
"""Endpoints that take a whole turn, at ten ports."""
PORTS = tuple(ServicePort(f"p{n}", n, "TCP") for n in range(1, 11))
PODS = tuple(Endpoint(f"192.0.2.{n % 250}", hostname=f"web-{n}") for n in range(MANY))


class Rounds:
    """Rounds of one proxy, which are due whenever the clock is set."""

    def __init__(self):
        self.now, self.store = 0.0, Store()
        self.turns, self.taken = ChangeTurns(lambda: self.now), None
        self._generation = 0

    def change(self, name, count=MANY, namespace="busy"):
        """Change the endpoints of a Service."""
        self._generation += 1
        key = ServiceKey(namespace, name)
        self.store.put_service(service(key, PORTS if count > 10 else PORTS[:1], cluster_ips=()))
        new = Endpoint(f"198.51.100.{self._generation}")
        pods, item = (new, *PODS[1:count]), SliceKey(namespace, name)
        self.store.put_slice(EndpointSlice(item, key, IPFamily.IPV4, (), pods))

    def round(self, after_s=0.0):
        """Do a round later; returns the names of Services whose changes it took."""
        self.now += after_s
        have = self.taken
        self.taken = self.turns.take(have, self.store.snapshot())
        before = have.services if have else {}
        services = self.taken.services
        return {key.name for key in services if before.get(key) is not services[key]}


@pytest.fixture
def rounds():
    """Return rounds of which the first has taken an empty cluster."""
    found = Rounds()
    found.round()
    return found


def test_the_first_round_takes_all():
    rounds = Rounds()
    for n in range(5):
        rounds.change(f"web-{n}")
    assert len(rounds.round()) == 5
    assert rounds.taken is rounds.store.snapshot()


def test_what_fits_into_a_turn_is_the_snapshot_itself(rounds):
    for n in range(50):
        rounds.change(f"web-{n}", count=10)
    rounds.round()
    assert rounds.taken is rounds.store.snapshot()
    assert rounds.turns.next_in_s == math.inf


def test_a_namespace_has_a_turn_in_each_round_and_others_have_theirs(rounds):
    for n in range(3):
        rounds.change(f"web-{n}")
    rounds.change("cart", count=1, namespace="quiet")
    taken = rounds.round()
    assert "cart" in taken
    assert len(taken) == 2


def test_what_has_waited_longest_is_first(rounds):
    for name in ("a", "b", "c"):
        rounds.change(name)
    order = []
    while len(order) < 3:
        taken = rounds.round(1.0) - set(order)
        order += taken
        rounds.change(order[0])
    assert sorted(order) == ["a", "b", "c"]


def test_a_namespace_that_changes_all_the_time_waits_longer_and_longer(rounds):
    taken_at = []
    for _ in range(100):
        rounds.change("web")
        if rounds.round(0.125):
            taken_at.append(rounds.now)
    waits = [after - before for before, after in itertools.pairwise(taken_at)]
    assert waits[0] <= 0.25
    assert waits == sorted(waits)
    assert waits[-1] == 1.0


def test_a_namespace_that_was_quiet_for_a_while_does_not_wait(rounds):
    for _ in range(100):
        rounds.change("web")
        rounds.round(0.125)
    rounds.round(60.0)
    rounds.change("web")
    assert rounds.round(60.0) == {"web"}
    rounds.change("web")
    assert (rounds.round(), rounds.round(0.3)) == (set(), {"web"})


def test_a_small_service_of_a_namespace_that_waits_does_not_wait(rounds):
    rounds.change("web")
    rounds.round()
    rounds.change("web")
    rounds.change("small", count=2)
    assert rounds.round(0.01) == {"small"}
    assert 0 < rounds.turns.next_in_s < 1.0
    assert ServiceKey("busy", "web") in rounds.turns.waiting


def test_what_waits_stays_as_it_was_until_its_turn(rounds):
    rounds.change("web")
    rounds.round()
    before = rounds.taken
    rounds.change("web")
    assert rounds.round() == set()
    assert rounds.taken.services == before.services
    assert rounds.round(rounds.turns.next_in_s) == {"web"}
    assert rounds.taken is rounds.store.snapshot()


def test_a_service_that_changes_itself_or_is_deleted_does_not_wait(rounds):
    key = ServiceKey("busy", "web")
    rounds.change("web")
    rounds.change("other")
    rounds.round()
    rounds.round(1.0)
    rounds.change("web")
    rounds.store.put_service(service(key, PORTS, cluster_ips=("198.51.100.7",)))
    rounds.store.delete_service(ServiceKey("busy", "other"))
    assert rounds.round() == {"web"}
    assert rounds.taken.services.keys() == {key}
