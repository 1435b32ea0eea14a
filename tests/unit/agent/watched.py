"""A fake kernel that is watched, and helpers that wait for sync rounds."""

import asyncio
import contextlib

from userspace_proxy.errors import SteeringError
from userspace_proxy.steering import REFUSE, KernelTarget
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..port_numbers import is_listening
from .samples import Cluster


class WatchedSteering(FakeSteering):
    """Checks before and after each change whether the steered proxy ports have a listener."""

    def __init__(self, **more):
        super().__init__(**more)
        self.lies = []
        self.calls = []
        self.has_stale_flows = False
        self.repair_fails_with = None

    async def apply(self, wanted):
        await self._watch("apply", super().apply(wanted))

    async def change(self, changed, gone):
        await self._watch("change", super().change(changed, gone))

    async def _watch(self, name, call):
        self._look(self.kernel)
        await call
        self.calls.append(name)
        self.has_stale_flows = True
        self._look(self.kernel)

    async def forget_stale(self):
        self.has_stale_flows = False

    async def repair(self):
        if self.repair_fails_with is not None:
            raise self.repair_fails_with
        return await super().repair()

    def _look(self, kernel):
        self.lies += [
            frontend
            for frontend, target in kernel.items()
            if target is not REFUSE
            and not is_listening(target.port if isinstance(target, KernelTarget) else target)
        ]


async def settle(loop, snapshot):
    """Publish a snapshot and wait until it is applied."""
    loop.publish(snapshot)
    await settled(loop)


async def begin(start, **more):
    """Start a sync loop over a fake kernel; return its steering, the loop and a cluster."""
    steering = WatchedSteering()
    return steering, await start(steering, **more), Cluster()


async def settled(loop):
    """Wait until the newest snapshot is applied."""
    await asyncio.wait_for(loop.progress.settled(), 60)


async def refuse(steering, loop, snapshot):
    """Publish a snapshot that the kernel refuses, even on a retry."""
    steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    loop.publish(snapshot)
    await until(lambda: loop.counters.failures >= 2)


async def relent(steering, loop):
    """Make the kernel accept changes again, and wait until the newest snapshot is applied."""
    steering.fails_with = None
    await settled(loop)


async def until(condition):
    """Let the loop run until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), 0.005)


async def turn():
    """Let the loop run once."""
    turned = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned


def watched(steps, turns):
    """Yield each step, and append to ``turns`` whether other tasks have run after it."""
    for step in steps:
        is_turn = asyncio.Event()
        asyncio.get_running_loop().call_soon(is_turn.set)
        yield step
        turns.append(is_turn.is_set())
