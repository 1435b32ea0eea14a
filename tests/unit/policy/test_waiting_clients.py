import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.policy.waiting_clients import WaitingClients


class Place:
    def __init__(self, client_ip):
        self.client_ip = client_ip


def filled(*clients):
    waiting = WaitingClients()
    places = [Place(client) for client in clients]
    for place in places:
        waiting.add(place, 0.0)
    return waiting, places


def test_the_oldest_wait_of_the_client_with_the_most_waits_is_evicted():
    waiting, places = filled("lone", "many", "many", "few", "many", "few")
    assert waiting.to_end("new") is places[1]
    waiting.remove(places[1])
    waiting.remove(places[2])
    assert [place in waiting for place in places[:3]] == [True, False, False]
    assert waiting.to_end("new") is places[3]


def test_a_client_that_would_have_the_most_waits_evicts_its_own_wait():
    waiting, places = filled("one", "two", "one", "two")
    assert waiting.to_end("two") is places[1]


def test_a_wait_that_is_added_as_the_oldest_is_evicted_first():
    waiting, _ = filled("one", "one")
    older = Place("one")
    waiting.add(older, 0.0, is_first=True)
    assert waiting.to_end("two") is older


def test_new_clients_of_one_ipv6_64_network_evict_no_waits_of_other_clients():
    lone = [f"2001:db8:{i:x}::1" for i in range(10)]
    waiting, places = filled("192.0.2.1", *lone, *(f"2001:db8:bad::{i:x}" for i in range(1, 90)))
    for i in range(90, 190):
        newcomer = Place(f"2001:db8:bad::{i:x}")
        ended = waiting.to_end(newcomer.client_ip)
        assert ended.client_ip == f"2001:db8:bad::{i - 89:x}"
        waiting.remove(ended)
        waiting.add(newcomer, 0.0)
    assert waiting.to_end("192.0.2.2").client_ip == "2001:db8:bad::65"
    assert list(waiting)[:11] == places[:11]


def test_a_client_above_its_share_evicts_its_own_wait_before_a_larger_64_network():
    pods = [f"fd00::{i:x}" for i in range(1, 101)]
    waiting, places = filled(*pods, *["192.0.2.1"] * 15)
    # The sixteenth wait is within its client's share.
    assert waiting.to_end("192.0.2.1") is places[0]
    waiting.add(Place("192.0.2.1"), 0.0)
    assert waiting.to_end("192.0.2.2") is places[0]
    assert waiting.to_end("192.0.2.1") is places[100]
    waiting.add(Place("192.0.2.1"), 0.0)
    assert waiting.to_end("fd00::1") is places[100]


CLIENTS = ("192.0.2.1", "192.0.2.2", "fd00::1", "fd00::2", "fd00::3", "fd00:0:0:1::1")


@pytest.mark.parametrize("many", [0, 20])
@given(changes=st.lists(st.tuples(st.sampled_from(CLIENTS), st.booleans()), max_size=40))
def test_the_evicted_client_exceeds_its_share_or_is_in_the_largest_network(many, changes):
    waiting, places = filled(*["fd00:0:0:1::1"] * many)
    for client, is_removal in changes:
        if is_removal and places:
            waiting.remove(places.pop(len(places) // 2))
        else:
            places.append(Place(client))
            waiting.add(places[-1], 0.0)
    if not places:
        return
    clients = Counter(place.client_ip for place in places)
    networks = Counter(place.client_ip.rpartition("::")[0] or place.client_ip for place in places)
    loser = waiting.to_end("192.0.2.9").client_ip
    network = loser.rpartition("::")[0]
    if max(clients.values()) > 16:
        assert clients[loser] == max(clients.values())
    else:
        assert networks[network or loser] == max(networks.values())
        others = (ip for ip in clients if network and ip.startswith(f"{network}::"))
        assert clients[loser] == max((clients[ip] for ip in others), default=clients[loser])


def test_removed_waits_free_their_memory():
    waiting, places = filled(*(f"fd00:0:0:{n:x}::1" for n in range(1000)))
    for place in places:
        waiting.remove(place)
    assert len(pickle.dumps(waiting)) < 2 * len(pickle.dumps(WaitingClients()))


def test_a_waiting_client_counts_as_waiting_at_a_limit_or_as_dialled_but_never_as_both():
    waiting, (first, second) = filled("one", "two")
    waiting.wait(first, is_at_limit=True)
    assert (waiting.at_limit, waiting.dialled) == ({first}, set())
    waiting.turn(first)
    assert (waiting.at_limit, waiting.dialled) == (set(), {first})
    waiting.wait(first, is_at_limit=False)
    assert (waiting.at_limit, waiting.dialled) == (set(), set())
    waiting.turn(second)
    waiting.remove(second)
    assert (list(waiting), waiting.dialled) == ([first], set())
    waiting.wait(first, is_at_limit=True)
    waiting.remove(first)
    assert waiting.at_limit == set()


def test_the_longest_waiting_clients_become_overdue_first():
    waiting, places = WaitingClients(), [Place("one") for _ in range(4)]
    assert waiting.waits_since() is None
    for since, place in enumerate(places):
        waiting.add(place, float(since))
    assert waiting.waits_since() == 0.0
    assert waiting.overdue(2.0, 10) == places[:3]
    assert waiting.overdue(2.0, 2) == places[:2]
