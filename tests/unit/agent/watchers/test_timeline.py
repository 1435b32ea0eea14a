import asyncio
import time

import pytest

from tests.port_keys import port_key
from tests.unit.status.views import make_view, replace
from userspace_proxy.agent.rounds.served_port import ServedPort
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.agent.watchers.timeline import KEPT, OUTAGES_MAX, Timeline
from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import no_host, refuses, silent
from userspace_proxy.causes.say import say
from userspace_proxy.cluster import Store
from userspace_proxy.diagnosis.paths import PathView
from userspace_proxy.diagnosis.problems import problems_of_node
from userspace_proxy.facts import LAST_MINUTE_S, Level, SourceFacts
from userspace_proxy.model import DataPath, Failure, SocketAddress
from userspace_proxy.model.node_network import NextHop
from userspace_proxy.model.serving import Serving
from userspace_proxy.plan import Planner, diff_plans
from userspace_proxy.plane import Plane
from userspace_proxy.plane.messages import Ejected, Returned
from userspace_proxy.policy import NodeFacts
from userspace_proxy.status.timeline import Event

from ..samples import endpoints, service

PODS = tuple(SocketAddress(f"10.0.{n // 250}.{n % 250}", 80) for n in range(10_000))
POD = SocketAddress("192.0.2.1", 8080)
NOW = 1_763_600_000.0


class Rig:
    """A timeline of a plane with one group, and the clock and view that the test changes."""

    def __init__(self):
        self.plane = Plane(asyncio.get_running_loop())
        self.group = self.plane.open_group(port_key("shop/web:http"))
        self.plane.serve(self.group, Serving(endpoints=(POD,)), {})
        self.now = NOW
        self.set_by = 0.0
        self.view = make_view()
        began = time.monotonic()
        clocks = WallClock(lambda: began + self.now - NOW, lambda: self.now + self.set_by)
        self.timeline = Timeline(self.plane, lambda: self.view, clocks)

    def eject(self, pod=POD):
        self.plane.receive(0, Ejected(self.group.number, pod, is_silent=False))

    def give_back(self):
        self.plane.receive(0, Returned(self.group.number, POD))

    async def seen(self):
        """Update the timeline; return its only event."""
        await self.timeline.look()
        (event,) = self.timeline.events()
        return event

    def whats(self):
        return [(event.at - NOW, event.what, event.saved) for event in self.timeline.events()]


@pytest.fixture
async def rig():
    rig = Rig()
    yield rig
    rig.plane.close()


async def test_an_outage_lasts_until_the_endpoint_answers(rig):
    rig.group.counters.saved = 100
    rig.eject()
    rig.group.counters.saved = 103
    (event,) = rig.timeline.events()
    assert (event.port, event.level, event.lasts) == ("shop/web:http", Level.TROUBLE, True)
    assert event.saved == 3
    rig.now += 12
    rig.give_back()
    await rig.timeline.look()
    assert rig.whats() == [
        (12, "192.0.2.1:8080 answers again, after 12 s", 3),
        (0, "192.0.2.1:8080 fails; ejected", 3),
    ]
    rig.group.counters.saved = 200
    assert [event.saved for event in rig.timeline.events()] == [3, 3]
    assert not any(event.lasts for event in rig.timeline.events())


async def test_an_outage_by_an_injected_fault_is_labelled_and_not_marked_as_a_problem(rig):
    detours = ((POD, SocketAddress("127.0.0.1", 40000)),)
    rig.plane.serve(rig.group, Serving(endpoints=(POD,), detours=detours), {})
    rig.eject()
    (event,) = rig.timeline.events()
    assert event.level is Level.ATTENTION
    assert event.what == "192.0.2.1:8080 fails (a fault on purpose); ejected"


async def test_an_outage_has_the_text_of_its_service_ports_state(rig):
    dials = rig.group.counters_of(POD).dials
    dials.failed(time.monotonic(), Failure.SILENT)
    rig.eject()
    event = await rig.seen()
    assert event.what == f"{say(silent(POD))}; ejected"
    rig.group.note_obstacle(POD, NextHop("eth0"))
    event = await rig.seen()
    assert event.what == f"{say(no_host(POD, 'eth0'))}; ejected"


async def test_an_outage_without_recent_dials_is_in_the_past_tense(rig):
    dials = rig.group.counters_of(POD).dials
    dials.failed(time.monotonic() - LAST_MINUTE_S - 1, Failure.REFUSED)
    rig.eject()
    event = await rig.seen()
    assert event.what == f"{say(refuses(POD).replace(when=When.PAST))}; ejected"


async def test_an_endpoint_failing_several_service_ports_is_one_event(rig):
    others = [rig.plane.open_group(port_key(f"shop/web-{number}")) for number in range(2)]
    for group in (rig.group, *others):
        rig.plane.serve(group, Serving(endpoints=(POD,)), {})
        group.counters_of(POD).dials.failed(time.monotonic(), Failure.REFUSED)
        rig.plane.receive(0, Ejected(group.number, POD, is_silent=False))
    event = await rig.seen()
    assert event.what.startswith(say(refuses(POD)))
    assert event.what.endswith("; ejected: 3 Service ports")
    assert (event.port, event.lasts) == ("", True)
    rig.now += 9
    for group in (rig.group, *others):
        rig.plane.receive(0, Returned(group.number, POD))
    await rig.timeline.look()
    back, event = rig.timeline.events()
    assert back.what == "192.0.2.1:8080 answers again, after 9 s: 3 Service ports"
    assert not event.lasts


async def test_further_ejections_of_an_ejected_endpoint_are_the_same_outage(rig):
    for _ in range(5):
        rig.eject()
        await rig.timeline.look()
    assert len(rig.timeline.events()) == 1


async def test_an_outage_has_not_ended_if_its_endpoint_is_ejected_again_immediately(rig):
    rig.eject()
    rig.give_back()
    rig.eject()
    await rig.timeline.look()
    assert [event.lasts for event in rig.timeline.events()] == [True]


async def test_an_outage_ends_with_the_removal_of_its_endpoint(rig):
    rig.eject()
    rig.plane.serve(rig.group, Serving(), {})
    event = await rig.seen()
    assert not event.lasts


class CountingPlane(Plane):
    """Counts queries of the workers."""

    refreshes = 0

    async def refresh(self):
        self.refreshes += 1


async def test_an_outages_duration_ignores_clock_changes(rig):
    rig.eject()
    rig.set_by = 86_400.0
    rig.now += 3
    rig.give_back()
    await rig.timeline.look()
    (returned, fails) = rig.whats()
    assert (returned[0] - rig.set_by, fails[0] - rig.set_by) == (3.0, 0.0)
    assert returned[1].endswith("answers again, after 3 s")


async def test_a_waiting_change_is_reported_as_an_event_with_its_age(rig):
    rig.view = replace(rig.view, sync=replace(rig.view.sync, waiting_since=NOW - 3600))
    (problem,) = (one for one in problems_of_node(rig.view, NOW) if "waited 1 h" in one.what)
    await rig.timeline.look()
    assert (0.0, problem.what, 0) in rig.whats()


async def test_workers_are_queried_for_the_cause_of_an_ejection_at_most_three_times():
    plane = CountingPlane(asyncio.get_running_loop())
    group = plane.open_group(port_key("shop/web:http"))
    plane.serve(group, Serving(endpoints=(POD,)), {})
    timeline = Timeline(plane, make_view)
    plane.receive(0, Ejected(group.number, POD, is_silent=False))
    for _ in range(20):
        await timeline.look()
    assert plane.refreshes == 3
    plane.receive(0, Returned(group.number, POD))
    await timeline.look()
    assert plane.refreshes == 4
    plane.close()


async def test_checking_ten_thousand_ejected_endpoints_takes_less_than_3_s(rig):
    rig.plane.serve(rig.group, Serving(endpoints=PODS), {})
    for pod in PODS:
        rig.eject(pod)
    began = time.thread_time()
    await rig.timeline.look()
    # A list of all endpoints for each outage would make look() take six seconds.
    assert time.thread_time() - began < 3.0
    assert len(rig.timeline.events()) == KEPT


async def test_outages_beyond_the_limit_are_one_event(rig):
    rig.plane.serve(rig.group, Serving(endpoints=PODS), {})
    for pod in PODS[: OUTAGES_MAX + 50]:
        rig.eject(pod)
    whats = [event.what for event in rig.timeline.events()]
    more = "More than 1,000 endpoints are ejected; further ones aren't listed"
    assert (whats.count(more), len(rig.timeline._outages)) == (1, OUTAGES_MAX)


async def test_a_problem_of_the_node_is_recorded_once(rig):
    rig.view = replace(rig.view, source=SourceFacts("manifests", "/a", True, ("no such file",)))
    await rig.timeline.look()
    await rig.timeline.look()
    assert rig.whats() == [(0, "Source: no such file", 0)]


class Plans:
    """Plans of Services whose endpoints come and go."""

    def __init__(self, count, *pods):
        self._store = Store()
        self._planner = Planner(NodeFacts())
        self._names = [f"web-{n}" for n in range(count)]
        for n, name in enumerate(self._names):
            self._store.put_service(service(name, f"10.96.0.{n + 1}"))
        self.plan = self._next(pods)

    def change(self, *pods):
        """Return the applied plan and the changes that these endpoints make."""
        before, self.plan = self.plan, self._next(pods)
        return before, diff_plans(before, self.plan)

    def _next(self, pods):
        for name in self._names:
            self._store.put_slice(endpoints(name, *pods))
        return self._planner.plan(self._store.snapshot())


async def test_losing_and_regaining_the_last_endpoint_are_reported_as_events(rig):
    plans = Plans(1, "192.0.2.1")
    rig.timeline.note_plan(*plans.change())
    rig.timeline.note_plan(*plans.change("192.0.2.1", "192.0.2.2"))
    lost, regained = sorted(rig.timeline.events(), key=lambda event: event.level is Level.OK)
    assert lost.what == "No endpoint is usable: its EndpointSlice is empty"
    assert (lost.port, lost.level) == ("shop/web-0", Level.ATTENTION)
    assert regained == Event(NOW, Level.OK, "2 usable endpoints again", "shop/web-0")


async def test_changes_that_leave_some_endpoints_are_not_recorded(rig):
    plans = Plans(1, "192.0.2.1")
    rig.timeline.note_plan(*plans.change("192.0.2.1", "192.0.2.2"))
    assert rig.timeline.events() == []


async def test_many_changes_in_a_round_are_one_event(rig):
    plans = Plans(200, "192.0.2.1")
    rig.timeline.note_plan(*plans.change())
    assert rig.whats() == [(0, "200 Service ports lost their last usable endpoint", 0)]


class Switched:
    """Service ports that change their path together."""

    def __init__(self, count):
        plan = Plans(count, "192.0.2.1").plan
        self.ports = [ServedPort(port, None) for port in plan.ports.values()]

    def to(self, path, why):
        for port in self.ports:
            port.path = PathView(path, NOW, why)
        return self.ports


async def test_a_path_switch_is_reported_as_an_event_in_each_direction(rig):
    switched = Switched(1)
    rig.timeline.note_switches(switched.to(DataPath.KERNEL, "all answer"))
    assert rig.timeline.events() == [], "no earlier path"
    for path, why in ((DataPath.USERSPACE, "a probe failed"), (DataPath.KERNEL, "all answer")) * 2:
        rig.now += 1
        rig.timeline.note_switches(switched.to(path, why))
    rig.timeline.note_switches(switched.to(DataPath.KERNEL, "other endpoints answer"))
    assert rig.whats()[:2] == [
        (4, "Path kernel: all answer", 0),
        (3, "Path userspace: a probe failed", 0),
    ]
    assert [(event.level, event.port) for event in rig.timeline.events()] == [
        (Level.OK, "shop/web-0"),
        (Level.ATTENTION, "shop/web-0"),
    ] * 2


async def test_many_path_switches_are_one_event_per_direction_with_a_bounded_count(rig):
    switched = Switched(OUTAGES_MAX + 5)
    rig.timeline.note_switches(switched.to(DataPath.USERSPACE, "a probe failed"))
    rig.timeline.note_switches(switched.to(DataPath.KERNEL, "all answer"))
    assert sorted(event.what for event in rig.timeline.events()) == [
        "1,000 Service ports are back on the kernel path",
        "1,005 Service ports left the kernel path: a probe failed",
    ]


async def test_the_number_of_events_is_bounded(rig):
    for _ in range(3 * KEPT):
        rig.eject()
        rig.give_back()
        await rig.timeline.look()
    assert len(rig.timeline.events()) == KEPT
