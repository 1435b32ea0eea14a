"""A control process: the plane, what it takes over, and the Services that it is to serve."""

from __future__ import annotations

import _socket
import asyncio
from collections import Counter
from collections.abc import Hashable, Mapping
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.port_keys import port_key
from userspace_proxy.agent import hand_over
from userspace_proxy.dataplane import Tuning
from userspace_proxy.errors import BoundError, ShortageError
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Group, Plane, Wanted
from userspace_proxy.plane.adoption import LAST_ANSWER_S, Predecessors

from .plan import ServicePlan

if TYPE_CHECKING:
    from .machine import Process
    from .world import World

LABEL = "node"
_TUNING = Tuning(descriptor_limit=400, connection_log=0.0)
_KEPT = "table"
_DRAIN_S = 1.0
BOUND = "listeners use what they may"
REFUSES = "what can't be served refuses"
RESERVE = 2
"""Descriptors that aren't for listeners."""
_LISTENERS = 3
"""What one more listener takes at most: a socket for each worker."""
# The agent tries again what can't be served.
_AGAIN_S = 1.0


class Desired:
    """How one Service is to be served now."""

    def __init__(self, number: int, planned: ServicePlan) -> None:
        self.planned = planned
        self.number = number
        self.name = f"shop/web-{number}:http"
        self.serving: Serving = planned.serving
        self.places: tuple[int, ...] = planned.places
        self.addresses = list(planned.addresses)
        self.is_there = True

    @property
    def chosen(self) -> list[SocketAddress]:
        """Where it is to listen."""
        return [self.addresses[place] for place in self.places]

    @property
    def wanted(self) -> Mapping[Hashable, Wanted]:
        """The listeners by their keys, which are their addresses."""
        return {at: Wanted(self.planned.protocol, [at]) for at in self.chosen}


class Control:
    """What one control process runs."""

    def __init__(self, world: World, process: Process, workers: int) -> None:
        self.world = world
        self.workers = workers
        self.process = process
        self.plane: Plane | None = None
        self.predecessors: Predecessors | None = None
        self.kept: Any = None
        """The socket that workers keep for the next control process, as one for nftables."""
        self.serves = False
        """It has reported that it serves."""
        self.served: dict[str, Group] = {}
        self.failures: set[SocketAddress] = set()
        """Where it can't listen: descriptors are short, or another process has the port."""
        self.tried: set[SocketAddress] = set()
        """Where it has tried to listen; it may have closed what it had there."""
        self._stop = asyncio.Event()
        self._has_given_up = False

    async def run(self) -> int:
        """Take over, serve until told to stop, and end in order; return the exit status."""
        world, loop = self.world, self.process.loop
        async with AsyncExitStack() as stack:
            began = world.timeline.now
            self.predecessors = await hand_over.adopt(LABEL, stack)
            world.adoptions.note(self.process, began)
            plane = self.plane = Plane(
                loop,  # type: ignore[arg-type]
                self.workers,
                _TUNING,
                clock=world.timeline.clock,
                label=LABEL,
                predecessors=self.predecessors,
            )
            world.notices.watch(plane)
            plane.start()
            found = self.predecessors.kept if self.predecessors is not None else {}
            self.kept = found.pop(_KEPT, None) or self.process.kernel.socket(_socket.AF_NETLINK)
            plane.keep(_KEPT, self.kept)
            if world.networks is not None:
                plane.preserve(world.networks)
            if self.is_ending:
                # Told so while it waited for predecessors, it serves nothing: they alone still do.
                world.in_force.note_end()
            self.apply()
            await self._relieve(plane)
            await self._stop.wait()
            # It may die while it closes them.
            world.in_force.note_end()
            if self.predecessors is not None:
                self.predecessors.end()
            for group in self.served.values():
                plane.close_group(group)
            await world.draining.drain(self, _DRAIN_S)
            if self.predecessors is not None:
                await self.predecessors.answered(LAST_ANSWER_S)
        # Not in a task: it waits for other processes.
        loop.call_soon(plane.close)
        await asyncio.sleep(1.0)  # noqa: TID251 - in virtual time
        world.draining.judge_left(self.process)
        return 0

    async def _relieve(self, plane: Plane) -> None:
        async def caught_up() -> None:
            """Part of Progress: the first round was done at once."""

        options = SimpleNamespace(
            report_serving=self._report_serving, predecessor_drain_s=self.world.plan.drain_s
        )
        progress = SimpleNamespace(caught_up=caught_up)
        await hand_over.Relief(self.predecessors, progress, plane, options).run()  # type: ignore[arg-type]

    def _report_serving(self) -> None:
        if self._has_given_up:
            # An agent that ends has stopped what hands over.
            return
        self.world.note(f"{self.process.name}: serves")
        self.serves = True
        self.world.draining.note_relief(self)
        self.world.adoptions.note_relief(self.process)

    @property
    def is_ending(self) -> bool:
        return self._has_given_up or self._stop.is_set()

    def stop(self) -> None:
        """Have it end in order."""
        self._stop.set()

    def abandon(self, exits_after_s: float) -> None:
        """End the workers, and exit at once, or later, as an agent that can't start."""
        assert self.plane is not None, "it has workers"
        self._has_given_up = True
        self.world.in_force.note_end()
        if exits_after_s:
            self.plane.close()
            self.process.loop.call_later(exits_after_s, self.process.die, 1)
        else:
            self.plane.hang_up()
            self.process.die(1)

    def preserve(self) -> None:
        """Have workers know the networks of the node, which have changed."""
        if self.plane is not None and not self.is_ending:
            self.plane.preserve(self.world.networks)

    def apply(self) -> None:
        """Bring what is to be served into force, as a round of the agent does."""
        plane = self.plane
        if plane is None or self.is_ending:
            return
        wanted = {each.name: each for each in self.world.desired if each.is_there}
        retired = [self.served.pop(name) for name in list(self.served) if name not in wanted]
        self.failures.clear()
        for name, desired in wanted.items():
            group = self.served.get(name)
            if group is None:
                group = self.served[name] = plane.open_group(port_key(name))
            if group.serving != desired.serving:
                self.world.ejections.note_served(
                    self.process, group.number, group.serving, desired.serving
                )
            answer = plane.serve(group, desired.serving, desired.wanted)
            unexplained = set[Hashable]()
            for at, exc in answer.errors.items():
                assert isinstance(at, SocketAddress), "keys are addresses"
                self.failures.add(at)
                if isinstance(exc, BoundError):
                    self._check_bound(plane, at)
                elif not self._is_short(exc):
                    unexplained.add(at)
            self.world.adoptions.judge(self, desired, unexplained)
            self.tried.update(desired.chosen)
            self.world.in_force.note_answer(desired, self.failures)
        plane.close_unwanted()
        for group in retired:
            plane.close_group(group)
        self.world.in_force.note_round()
        self._check_open(plane)
        if self.failures:
            self.process.loop.call_later(_AGAIN_S, self.apply)

    def _check_bound(self, plane: Plane, at: SocketAddress) -> None:
        """Check that listeners that are open now take the descriptors that they may."""
        counts = Counter(w for each in plane._listeners._open.values() for w in each.workers)
        limit = self.world.plan.descriptors
        # Those that the plane has yet to close, or has just closed, may be among them.
        is_near = counts.total() + _LISTENERS >= limit // 2
        self.world.judgements.check(BOUND, is_near, f"{at} has no room beside {counts.total()}")

    def _check_open(self, plane: Plane) -> None:
        """Check that listeners leave the rest its descriptors, and that what failed refuses."""
        world = self.world
        total = sum(len(each.workers) for each in plane._listeners._open.values())
        most = world.plan.descriptors - RESERVE
        world.judgements.check(BOUND, total <= most, f"listeners take {total} of {most}")
        for at in self.failures if self.predecessors is None else ():
            ports = [p for p in world.machine.ports if p.local == (at.ip, at.port)]
            is_open = any(port.is_listening for port in ports)
            world.judgements.check(REFUSES, not is_open, f"{at} can't be served, and listens")

    def _is_short(self, exc: Exception | None) -> bool:
        """Return whether this process now lacks what one of its calls needs."""
        return isinstance(exc, ShortageError) and bool(self.process.kernel.fails)
