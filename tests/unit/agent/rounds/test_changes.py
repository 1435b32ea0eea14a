"""The counted changes between two snapshots."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace

from userspace_proxy.agent.rounds import changes
from userspace_proxy.agent.rounds.change_turns import ChangeTurns
from userspace_proxy.agent.rounds.changes import (
    ChangeCounts,
    Progress,
    SyncCounters,
    Triggers,
    count_changes,
)
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import EndpointSlice, IPFamily, ServiceKey, SliceKey

from ..samples import Cluster, endpoints, service
from ..watched import begin, relent, settle, turn, until

POD, OTHER_POD = "192.0.2.1", "192.0.2.2"


def test_only_differences_count_as_changes():
    cluster = Cluster()
    cluster.serve("web", "10.96.0.1", POD)
    first = cluster.serve("cart", "10.96.0.2", POD)
    scaled = cluster.serve("web", "10.96.0.1", POD, OTHER_POD)
    assert count_changes(first, scaled) == ChangeCounts(0, 1)
    moved = cluster.serve("web", "10.96.0.9", POD, OTHER_POD)
    assert count_changes(scaled, moved) == ChangeCounts(1, 0)
    assert count_changes(first, moved) == ChangeCounts(1, 1)
    assert count_changes(moved, moved) == ChangeCounts(0, 0)


def test_a_single_changed_slice_among_many_counts_once():
    cluster = Cluster()
    before = cluster.serve("web", "10.96.0.1", POD)
    second = SliceKey("shop", "web-2")
    cluster.store.put_slice(EndpointSlice(second, ServiceKey("shop", "web"), IPFamily.IPV4, (), ()))
    after = cluster.store.snapshot()
    assert count_changes(before, after) == ChangeCounts(0, 1)
    cluster.store.delete_slice(second)
    assert count_changes(after, cluster.store.snapshot()) == ChangeCounts(0, 1)


def test_a_removed_service_and_its_slice_count_as_changes():
    cluster = Cluster()
    before = cluster.serve("web", "10.96.0.1", POD)
    assert count_changes(before, cluster.remove("web")) == ChangeCounts(1, 1)


def test_a_relist_with_the_same_content_counts_no_changes():
    cluster = Cluster()
    before = cluster.serve("web", "10.96.0.1", POD)
    cluster.store.replace_services([service("web", "10.96.0.1")])
    cluster.store.replace_slices([endpoints("web", POD)])
    assert count_changes(before, cluster.store.snapshot()) == ChangeCounts(0, 0)


def with_slices(cluster, *times):
    """Return a snapshot whose slices were triggered by changes at these times."""
    for number, at in enumerate(times, start=2):
        key = SliceKey("shop", f"web-{number}")
        item = EndpointSlice(key, ServiceKey("shop", "web"), IPFamily.IPV4, (), ())
        cluster.store.put_slice(replace(item, triggered_at=at))
    return cluster.store.snapshot()


def test_the_trigger_times_of_new_slices_are_recorded_and_returned_once():
    cluster, triggers = Cluster(), Triggers(started=900.0)
    before = cluster.serve("web", "10.96.0.1", POD)
    after = with_slices(cluster, 1000.0, 0.0, 899.0, 1002.0)
    triggers.note(before, after)
    triggers.note(after, after)
    triggers.note(after, before)
    assert len(triggers) == 2
    assert triggers.take(1, now=1001.5) == [1.5]
    assert triggers.take(5, now=1001.5) == [0.0], "the other machine's clock is ahead"
    assert len(triggers) == 0


def test_the_number_of_waiting_triggers_is_bounded(monkeypatch):
    monkeypatch.setattr(changes, "_TRIGGERS_MAX", 3)
    cluster, triggers = Cluster(), Triggers(started=900.0)
    triggers.note(None, with_slices(cluster, *(1000.0 + n for n in range(9))))
    assert len(triggers) == 0, "a slice without its Service isn't in the snapshot"
    cluster.serve("web", "10.96.0.1", POD)
    triggers.note(None, cluster.store.snapshot())
    assert len(triggers) == 3


async def test_a_changes_wait_starts_at_its_arrival(start):
    steering, loop, cluster = await begin(start)
    await settle(loop, cluster.serve("web", "10.96.0.1", POD))
    assert loop.counters.waiting_since == 0
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(cluster.serve("cart", "10.96.0.2", POD))
    first = loop.counters.waiting_since
    loop.publish(cluster.serve("admin", "10.96.0.3", POD))
    await until(lambda: loop.counters.failures >= 1)
    assert loop.counters.waiting_since == first > 0
    await relent(steering, loop)
    assert loop.counters.waiting_since == 0


async def test_a_snapshot_arriving_during_a_round_takes_effect_in_the_next_round():
    cluster, counters = Cluster(), SyncCounters()
    progress = Progress(counters)
    assert progress.begin() is None
    first = cluster.serve("web", "10.96.0.1", POD)
    assert [progress.add(first), progress.add(first)] == [True, False]
    batch = progress.begin()
    second = cluster.serve("cart", "10.96.0.2", POD)
    progress.add(second)
    progress.end(batch)
    assert (progress.is_synced, progress.in_force, progress.latest) == (True, first, second)
    assert counters.waiting_since > 0
    assert counters.last_done >= counters.last_queued > 0
    assert (counters.in_force, counters.changes, counters.rounds) == ((1, 1), (2, 2), 1)
    progress.end(progress.begin())
    assert (progress.is_behind, counters.waiting_since) == (False, 0)
    assert counters.in_force == counters.changes


def with_a_change_that_waits(counters: SyncCounters, clock: Callable[[], float]) -> Progress:
    """Return the progress after three changes of a large Service; the last waits for its turn."""
    progress, cluster = Progress(counters, ChangeTurns(clock)), Cluster()
    pods = [f"192.0.2.{n}" for n in range(250)]
    for count in range(1, 4):
        progress.add(cluster.serve("web", "10.96.0.1", *pods[count:]))
        progress.end(progress.begin())
    return progress


async def test_a_waiting_change_is_not_applied_together_with_other_changes():
    counters, now = SyncCounters(), [0.0]
    progress = with_a_change_that_waits(counters, lambda: now[0])
    assert (progress.is_behind, progress.in_force is progress.latest) == (False, False)
    assert (counters.changes, counters.in_force) == ((1, 3), (1, 2))
    caught_up, settled = map(asyncio.ensure_future, (progress.caught_up(), progress.settled()))
    await turn()
    assert (caught_up.done(), settled.done()) == (True, False)
    now[0] = progress.next_turn_in_s
    progress.end(progress.begin())
    await progress.announce()
    await asyncio.wait_for(settled, 60)
    assert (counters.in_force, progress.next_turn_in_s) == ((1, 3), math.inf)


async def test_a_change_whose_turn_has_come_counts_as_waiting_until_applied():
    counters, now = SyncCounters(), [0.0]
    progress = with_a_change_that_waits(counters, lambda: now[0])
    assert counters.waiting_since == 0
    now[0] = progress.next_turn_in_s
    # This turn's round fails.
    progress.begin()
    assert counters.waiting_since > 0
    progress.end(progress.begin())
    assert counters.waiting_since == 0


def test_a_changes_duration_is_reported_once_it_is_applied():
    cluster, triggers = Cluster(), Triggers(started=900.0)
    cluster.serve("web", "10.96.0.1", POD)
    triggers.note(None, with_slices(cluster, 1000.0))
    web = ServiceKey("shop", "web")
    assert triggers.take(1, 1001.0, waiting={web}) == []
    assert triggers.take(1, 1003.0) == [3.0]


async def test_a_change_triggered_in_the_future_has_a_delay_of_0():
    cluster, progress = Cluster(), Progress(SyncCounters())
    cluster.serve("web", "10.96.0.1", POD)
    # The clock by which the slices were changed is ahead.
    progress.add(with_slices(cluster, time.time() + 60))
    assert progress.end(progress.begin()) == [0.0]


async def test_no_waiter_resumes_before_the_first_snapshot():
    progress = Progress(SyncCounters())
    waiting = [asyncio.ensure_future(each) for each in (progress.settled(), progress.caught_up())]
    await progress.announce()
    await turn()
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()


async def test_waiters_for_a_snapshot_resume_when_it_takes_effect():
    progress = Progress(SyncCounters())
    snapshot = Cluster().serve("web", "10.96.0.1", POD)
    progress.add(snapshot)
    waiting = [
        asyncio.ensure_future(each)
        for each in (
            progress.settled(),
            progress.caught_up(),
            progress.in_force_after(None),
            progress.round_after(0),
        )
    ]
    await progress.announce()
    await turn()
    assert not any(task.done() for task in waiting)
    progress.end(progress.begin())
    await progress.announce()
    assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [None, None, snapshot, 1]


async def test_progress_is_not_settled_while_a_newer_snapshot_is_pending():
    progress = Progress(SyncCounters())
    progress.add(Cluster().serve("web", "10.96.0.1", POD))
    progress.end(progress.begin())
    progress.is_expecting = lambda: True
    waiting = asyncio.ensure_future(progress.settled())
    await turn()
    assert not waiting.done()
    progress.is_expecting = lambda: False
    await progress.announce()
    await asyncio.wait_for(waiting, 60)
