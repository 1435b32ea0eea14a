"""What the end of an ejection means in a worker, also if another worker has found it.

    worker A: an ejected endpoint answers ──▶ Returned ──▶ worker B
        a dial of B that began before and meets silence   ejects nothing
        clients that wait in B                            are dialled at once
        the endpoint's slow start                         begins in B, too

Rule 1: a dial that meets silence lasts a second, or longer where no other endpoint is left. So one
that fails within a second of a return began before it.
Rule 2: silence that no return precedes ejects.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane.waiting_clients import WaitingClients
from userspace_proxy.model import DialFailure, Failure, SocketAddress

from ..streams import Stream
from .breaks import PATIENCE_S, SILENT_DIAL_S
from .clients import Client
from .machine import Process
from .plan import EARLY_S

if TYPE_CHECKING:
    from .world import World

OLD = "silence of before a return is over"
EJECTS = "silence ejects"
WOKEN = "a return wakes clients that wait"
STARTS = "what has returned starts slowly in each worker"

# For a turn that follows within an iteration or two.
_SLACK_S, _ITERATIONS = 0.1, 4
_MOST_DIALLED = 4
"""So many of those that wait are dialled at once."""


class Returns:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._soon_s = _SLACK_S + _ITERATIONS * world.machine.speed.latency_s
        self._ended_at: dict[tuple[Process, int, SocketAddress], float] = {}
        """When a worker last learned that an ejection is over."""
        self._turned_at: dict[WaitingClients[Any], float] = {}
        """When one of those that wait was last dialled."""
        self._dials_since: dict[Stream | None, float] = {}
        """By the proxy's end of a client that has waited: since when it is dialled, or infinity."""

    def patches(self) -> list[tuple[Any, str, Any]]:
        """Return what is to replace a method of the product, to see when clients are dialled."""
        turn, wait = WaitingClients.turn, WaitingClients.wait

        def turns(clients: WaitingClients[Any], waiter: Any) -> None:
            now = self._world.timeline.now
            self._turned_at[clients] = now
            self._dials_since[_end_of(waiter)] = now
            turn(clients, waiter)

        def waits(clients: WaitingClients[Any], waiter: Any, *, is_at_limit: bool) -> None:
            self._dials_since[_end_of(waiter)] = math.inf
            wait(clients, waiter, is_at_limit=is_at_limit)

        return [(WaitingClients, "turn", turns), (WaitingClients, "wait", waits)]

    def has_dialled_out(self, worker: Process, client: Client) -> bool:
        """Return whether the dials for a client that a worker has took all of their time."""
        accepted_at = worker.kernel.taken[client.stream]
        since = self._dials_since.get(client.stream.peer, accepted_at)
        return self._world.timeline.now - since >= PATIENCE_S - EARLY_S

    def note_failed(
        self,
        worker: Process,
        group: int,
        endpoint: SocketAddress,
        failed: DialFailure,
        *,
        is_ejected: bool,
        came_at: float,
    ) -> None:
        """Judge what a failed dial of an endpoint that wasn't ejected has led to.

        Args:
            is_ejected: Whether it is now.
            came_at: When the endpoint last came or left.
        """
        world, now = self._world, self._world.timeline.now
        known = worker.main._worker._groups.get(group)
        if failed.failure is not Failure.SILENT or known is None:
            return
        if endpoint not in known.serving.all_endpoints:
            return
        ended_at = self._ended_at.get((worker, group, endpoint))
        if ended_at is not None and ended_at >= now - SILENT_DIAL_S + EARLY_S:
            # What is known of an endpoint that leaves is forgotten.
            if came_at < ended_at - world.ejections.delay_s:
                what = f"{endpoint} was back in {worker.name} at {ended_at:.3f}, and is ejected"
                world.judgements.check(OLD, not is_ejected, f"{what} for an older dial")
            return
        longest_s = PATIENCE_S + self._soon_s
        if ended_at is None or max(ended_at, worker.loop.held_until) < now - longest_s:
            what = f"{endpoint} met silence in {worker.name}, and isn't ejected"
            world.judgements.check(EJECTS, is_ejected, what)

    def note_end(self, worker: Process, group: int, endpoint: SocketAddress) -> None:
        """Note that a worker learns that an ejection is over."""
        world, now = self._world, self._world.timeline.now
        self._ended_at[worker, group, endpoint] = now
        known = worker.main._worker._groups[group]
        if known.serving.handling.slow_start_s and len(known.serving.endpoints) > 1:
            began = known.balancers._weights._slow_start._began.get(endpoint)
            world.judgements.check(
                STARTS, began == now, f"{endpoint} has all of its share in {worker.name}"
            )
        room = known.waiting_room
        if room is not None and not room._clients.at_limit:
            clients: WaitingClients[Any] = room._clients
            if len(clients) > len(clients.dialled) < _MOST_DIALLED:
                world.timeline.after(self._soon_s, self._judge_woken, worker, clients, now)

    def _judge_woken(self, worker: Process, clients: WaitingClients[Any], since: float) -> None:
        world, now = self._world, self._world.timeline.now
        if worker.is_dead or world.is_finishing or world.is_over:
            return
        has_turned = self._turned_at.get(clients, -1.0) >= since
        if not has_turned and not clients:
            # They have been reset, as their group was closed, or have ended.
            return
        if not has_turned and worker.loop.held_until + self._soon_s > now:
            again_at = worker.loop.held_until + self._soon_s + EARLY_S
            world.timeline.at(again_at, self._judge_woken, worker, clients, since)
            return
        what = f"{len(clients)} wait in {worker.name} since an endpoint is back at {since:.3f}"
        world.judgements.check(WOKEN, has_turned, what)


def _end_of(waiter: Any) -> Stream | None:
    """Return the proxy's end of the connection of a client that waits; None for UDP."""
    connection = getattr(waiter, "_connection", None)
    core = None if connection is None else connection.client.core
    return core if isinstance(core, Stream) else None
