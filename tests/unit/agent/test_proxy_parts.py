"""Facts about workers, rounds and the source; and how long clients wait for the first plan."""

import asyncio
import errno
import os

import pytest

from userspace_proxy.agent.proxy_parts import (
    FIRST_SNAPSHOT_S,
    PlaneComponent,
    SourceComponent,
    SyncComponent,
    facts_of_kernel,
    facts_of_probes,
)
from userspace_proxy.agent.rounds.changes import Progress, SyncCounters
from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.rounds.wall_clock import WallClock
from userspace_proxy.clocks import Clocks
from userspace_proxy.diagnosis.problems import late_s
from userspace_proxy.errors import SteeringError
from userspace_proxy.facts import ProbesFacts, SourceFacts, StatusFacts
from userspace_proxy.kernel.offers import (
    FOR_SOCKETS,
    LACKS_NOTHING,
    KernelOffers,
    read_kernel_offers,
)
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import PortPool
from userspace_proxy.plane.observation import Observation
from userspace_proxy.sources import MemorySource
from userspace_proxy.status.observing import Observing
from userspace_proxy.steering import Bind
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..model.samples import CART, POD_A
from ..port_numbers import free_port, is_listening
from .samples import Cluster
from .watched import until

POD = "192.0.2.1"


class Restarted(FakeSteering):
    helper_restarts = 2


async def test_sync_rounds_and_steering_are_shown_until_close(start):
    steering = Restarted()
    loop = await start(steering)
    rounds = SyncComponent(loop, start.served_ports, steering)
    loop.publish(Cluster().serve("web", "10.96.0.1", POD))
    await loop.progress.settled()
    facts = StatusFacts()
    rounds.show(facts)
    assert (facts.sync.rounds, facts.sync.service_changes_pending) == (1, 0)
    assert (facts.steering.name, facts.steering.helper_restarts) == (steering.name, 2)
    assert facts.revision == loop.plan.revision
    await rounds.close()
    rounds.show(facts)
    assert (facts.steering.name, facts.steering.helper_restarts) == ("none", 0)


async def test_a_draining_loop_does_not_count_as_stuck(start):
    steering = FakeSteering()
    loop = await start(steering)
    facts = StatusFacts(is_draining=True)
    SyncComponent(loop, start.served_ports, steering).show(facts)
    assert facts.sync.turned_s_ago == 0.0


async def test_a_proxy_is_ready_from_its_first_plan_until_it_drains(plane, start):
    loop = await start(FakeSteering())
    part = PlaneComponent(plane, loop.progress, Observation(plane, Observing(), lambda: None))

    def is_ready(**state):
        facts = StatusFacts(**state)
        part.show(facts)
        return facts.is_ready

    await part.refresh()
    assert not is_ready()
    loop.publish(Cluster().serve("web", "10.96.0.1", POD))
    await loop.progress.settled()
    assert is_ready()
    assert not is_ready(is_draining=True)


async def test_a_rounds_age_ignores_clock_changes(start):
    unix = [0.0]
    steering = FakeSteering()
    loop = await start(steering)
    clock = WallClock(unix=lambda: Clocks.monotonic() + unix[0])
    part = SyncComponent(loop, start.served_ports, steering, clock)
    loop.publish(Cluster().serve("web", "10.96.0.1", POD))
    await loop.progress.settled()
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(Cluster().serve("web", "10.96.0.2", POD))
    await until(lambda: loop.counters.failures)
    for unix[0] in (0.0, 1e9, -50.0):
        facts = StatusFacts()
        part.show(facts)
        now = Clocks.monotonic() + unix[0]
        sync = facts.sync
        assert all(0 < now - at < 60 for at in (sync.last_done, sync.waiting_since))
        assert late_s(sync, now) == 0


@pytest.mark.parametrize("has_snapshot", [False, True])
async def test_recovered_listeners_close_if_no_snapshot_arrives_in_time(plane, start, has_snapshot):
    at, passed = SocketAddress("127.0.0.1", free_port()), asyncio.Event()
    plane.recover([(Protocol.TCP, at)], transparent=False)
    progress, supervisor, pauses = Progress(SyncCounters()), Supervisor(), []

    async def pause(seconds):
        pauses.append(seconds)
        if has_snapshot:
            progress.add(Cluster().serve("web", "10.96.0.1", POD))
        passed.set()

    observation = Observation(plane, Observing(), lambda: None)
    await PlaneComponent(plane, progress, observation, pause).start(supervisor)
    await passed.wait()
    await supervisor.stop()
    assert (pauses, is_listening(at.port)) == ([FIRST_SNAPSHOT_S], has_snapshot)


async def test_a_source_is_shown_before_reading_starts():
    source, facts, supervisor = MemorySource(), StatusFacts(), Supervisor()
    part = SourceComponent(source)
    await part.start(supervisor)
    part.show(facts)
    assert facts.source == SourceFacts(source.kind, source.location)


async def test_probe_facts_are_shown_once_probes_exist(plane):
    served_ports = ServedPorts(plane, Bind.PROXY_PORT, PortPool(27000, 27999))
    assert facts_of_probes(served_ports) == ProbesFacts()
    probes = served_ports.auto_paths.probes
    probes.add(POD_A, CART)
    probes.sent, probes.failed = 7, 3
    assert facts_of_probes(served_ports) == ProbesFacts(1, 0.0, 2_000, 7, 3)
    served_ports.close()


def test_for_a_kernel_with_all_features_only_the_release_is_shown():
    facts = facts_of_kernel(LACKS_NOTHING)
    assert (facts.release, list(facts.lacks)) == (os.uname().release, [])


def test_a_missing_feature_is_shown_once_with_its_effect():
    kernel = KernelOffers(dict.fromkeys(("inet tables", "nat", "numgen"), errno.EOPNOTSUPP))
    (lack,) = facts_of_kernel(kernel).lacks
    assert (lack.part, lack.brings) == ("inet tables", "CONFIG_NF_TABLES_INET")
    assert lack.words.startswith("it lacks inet tables, needed for steering nftables, ")


def test_forbidden_kernel_features_are_listed_but_unrequested_features_are_not():
    alone = read_kernel_offers(FOR_SOCKETS, try_others=lambda names: dict.fromkeys(names, 0))
    facts = facts_of_kernel(alone)
    assert (list(facts.forbidden), facts.is_partly_asked) == ([], True)
    forbids = read_kernel_offers(
        try_out=lambda _: errno.EPERM, try_others=lambda names: dict.fromkeys(names, 0)
    )
    facts = facts_of_kernel(forbids)
    assert ("nat" in facts.forbidden, "IPv6" in facts.forbidden) == (True, False)
    assert not facts.is_partly_asked


def test_a_missing_kernel_feature_is_not_reported_if_it_is_unused():
    assert not facts_of_kernel(KernelOffers({"sock_diag destroy": errno.EINVAL})).lacks
