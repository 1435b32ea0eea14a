"""Tests of look-up slots, in which namespaces take turns."""

import pytest

from userspace_proxy.cluster.host_queue import (
    DOUBTFUL_MAX,
    NAMESPACE_DOUBTFUL_MAX,
    NAMESPACE_MAX,
    SLOTS,
    HostQueue,
)

NOW = 100.0


@pytest.fixture
def queue():
    return HostQueue()


def put(queue, *hosts, at=NOW, is_doubtful=False, namespaces=("shop",)):
    for host in hosts:
        queue.put(host, at, namespaces, is_doubtful=is_doubtful)


def take_all(queue, now=NOW):
    return list(iter(lambda: queue.take(now), None))


def names(letter, count=20):
    return [f"{letter}{number}" for number in range(count)]


def test_requeuing_a_name_replaces_its_due_time(queue):
    put(queue, "a")
    put(queue, "a", at=NOW + 5)
    assert queue.next_at() == NOW + 5
    assert queue.take(NOW) is None
    assert take_all(queue, NOW + 5) == ["a"]


def test_a_removed_name_is_not_taken_from_the_queue(queue):
    put(queue, "a", "b")
    queue.remove("a")
    queue.remove("a")
    assert take_all(queue) == ["b"]
    put(queue, "c")
    assert queue.take(NOW - 1) is None
    queue.remove("c")
    assert (queue.next_at(), queue.take(NOW)) == (None, None)


def test_unresolved_names_use_at_most_half_of_the_slots(queue):
    for namespace in names("ns"):
        put(queue, f"a.{namespace}", is_doubtful=True, namespaces=[namespace])
    assert len(take_all(queue)) == DOUBTFUL_MAX == SLOTS // 2
    put(queue, "answered")
    assert take_all(queue) == ["answered"]


def test_a_namespace_uses_at_most_half_of_the_slots(queue):
    put(queue, *names("a"))
    assert len(take_all(queue)) == NAMESPACE_MAX == SLOTS // 2
    put(queue, "failed", is_doubtful=True)
    put(queue, "b", namespaces=["other"])
    assert take_all(queue) == ["b"]


def test_unresolved_names_leave_a_slot_for_other_names_of_their_namespace(queue):
    put(queue, *names("a"), is_doubtful=True)
    assert len(take_all(queue)) == NAMESPACE_DOUBTFUL_MAX
    put(queue, "b")
    assert take_all(queue) == ["b"]


def test_a_name_waits_for_a_released_slot(queue):
    put(queue, *names("a"))
    taken = take_all(queue)
    assert queue.next_at() is None
    assert queue.has_ready
    queue.give_back(taken[0])
    queue.give_back(taken[0])
    assert take_all(queue) == ["a4"]


def test_namespaces_take_turns_at_lookup_slots(queue):
    for letter in "abc":
        put(queue, *names(letter), namespaces=[letter], is_doubtful=True)
    taken, seen = take_all(queue), []
    for _ in range(30):
        queue.give_back(taken.pop(0))
        (host,) = take_all(queue)
        taken.append(host)
        seen.append(host[0])
    assert [seen.count(letter) for letter in "abc"] == [10, 10, 10]
    put(queue, "new", namespaces=["zzz"], is_doubtful=True)
    for _ in range(4):
        queue.give_back(taken.pop(0))
        taken += take_all(queue)
    assert "new" in taken


def test_a_name_shared_by_two_namespaces_uses_a_free_slot_of_either(queue):
    put(queue, *names("a"))
    take_all(queue)
    put(queue, "both", at=NOW + 1, namespaces=["shop", "other"])
    assert take_all(queue, NOW + 1) == ["both"]
    queue.give_back("both")
    assert take_all(queue, NOW + 1) == []


def test_a_name_queued_during_its_lookup_is_due_afterwards(queue):
    put(queue, "a")
    assert take_all(queue) == ["a"]
    put(queue, "a", at=NOW + 1)
    assert (queue.next_at(), take_all(queue, NOW + 1)) == (None, [])
    queue.give_back("a")
    assert queue.next_at() == NOW + 1
    put(queue, "longer", at=NOW)
    assert take_all(queue, NOW + 1) == ["longer", "a"]


def test_a_namespace_without_names_leaves_no_state(queue):
    for namespace in names("ns", 100):
        put(queue, f"a.{namespace}", namespaces=[namespace])
        put(queue, f"b.{namespace}", namespaces=[namespace])
        queue.give_back(queue.take(NOW))
        queue.remove(f"b.{namespace}")
    assert queue.take(NOW) is None
    assert not any((queue._entries, queue._waiting, queue._ready, queue._slots))
