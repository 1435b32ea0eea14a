"""Planes and sync loops for the tests of the agent."""

import asyncio
import contextlib

import pytest

from userspace_proxy.agent.rounds import sync
from userspace_proxy.agent.rounds.planning import Planning
from userspace_proxy.agent.rounds.served_ports import ServedPorts
from userspace_proxy.plan import Plan, Planner, diff_plans
from userspace_proxy.plane import Plane, PortPool
from userspace_proxy.policy import NodeFacts


@pytest.fixture
async def plane():
    plane = Plane(asyncio.get_running_loop())
    yield plane
    plane.close()


@pytest.fixture
async def start(plane, monkeypatch):
    """Yield a function that starts a sync loop over a fake kernel; it retries failures at once."""
    monkeypatch.setattr(sync, "REPAIR_S", 0.01)
    monkeypatch.setattr(sync, "RETRY_S", 0.01)
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            steering,
            recovered=None,
            min_period_s=0.0,
            check_health=None,
            report=lambda _: None,
            **more,
        ):
            served_ports = ServedPorts(plane, steering.bind, PortPool(28000, 28999))
            stack.callback(served_ports.close)
            start.served_ports = served_ports
            planner = Planner(NodeFacts())
            loop = sync.SyncLoop(
                Planning(planner, served_ports, recovered=recovered or {}, report=report, **more),
                served_ports,
                steering,
                min_period_s=min_period_s,
                check_health=check_health,
                report=report,
            )
            task = asyncio.create_task(loop.run())

            async def end():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

            stack.push_async_callback(end)
            return loop

        yield start


def retry(served_ports):
    """Retry the listeners that couldn't be opened; return whether a target has changed."""
    return True in list(served_ports.retry())


@pytest.fixture
def make(plane):
    """Yield a function that makes a ServedPorts, whose ``follow(snapshot)`` acts like a round."""

    def make(bind, pool=None, facts=None):
        served_ports = ServedPorts(plane, bind, pool or PortPool(27000, 27999))
        planner = Planner(facts or NodeFacts())
        have = Plan.empty()
        steered = {}

        def follow(snapshot, preferred=None):
            nonlocal have
            want = planner.plan(snapshot)
            changes = diff_plans(have, want)
            for key in changes.close:
                served_ports.retire(key)
            for port in changes.update:
                served_ports.update(port)
            for port in changes.open:
                served_ports.open(port, preferred or {})
            served_ports.switch_paths()
            change = served_ports.steered.change()
            for frontend in change.gone:
                del steered[frontend]
            steered.update(change.changed)
            served_ports.steered.mark(change)
            served_ports.close_retired()
            have = want
            assert steered == served_ports.steered.targets(), "differences add up to the whole"
            assert not served_ports.steered.change()
            return served_ports.steered.targets()

        served_ports.follow = follow
        stack.callback(served_ports.close)
        return served_ports

    with contextlib.ExitStack() as stack:
        yield make
