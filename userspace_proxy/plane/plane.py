"""The control half of the traffic: sockets are opened, kept and handed over here.

    Plane ──OpenGroup, OpenListener + its socket, ChangeGroup …──▶ worker 0
          ──▶ worker 1 …
          ◀── Counted, ListenerClosed, Ejected …

A worker is a process (the node agent), or lives in the caller's loop (embedding, demo, tests).

Rule 1: sockets are made, kept and put to listening or refusing here, at once; what workers
receive afterwards is which endpoints to dial. So a listener accepts when :meth:`Plane.serve`
returns, and a worker that hasn't received it yet, or has died, costs its clients a wait, not a
refusal.
Rule 2: nothing here awaits but :meth:`Plane.refresh` and :meth:`Plane.drain`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping

from ..dataplane import Serving, Tuning
from ..policy.locality import Networks
from .group import Group
from .listener import Answer, Listener, Wanted
from .listeners import Listeners
from .messages import CloseGroup, GroupReport, Preserve
from .workers import PlaneState, Workers


class Plane:
    """What carries the traffic of one proxy.

    Args:
        loop: Of the caller.
        workers: How many worker processes; None: the caller's loop carries the traffic.
        tuning: Figures for each worker; pipes and ephemeral ports are shared out.
        clock: Monotonic seconds.
        keeps_net_raw: Worker processes will dial at their clients' addresses, and keep the
            capability that this takes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        workers: int | None = None,
        tuning: Tuning | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        keeps_net_raw: bool = False,
    ) -> None:
        self._clock = clock
        self._workers = Workers(
            self, loop, workers, tuning or Tuning(), clock=clock, keeps_net_raw=keeps_net_raw
        )
        self._listeners = Listeners(
            len(self._workers), self._workers.descriptor_limit, self._workers.send
        )
        self._groups: dict[int, Group] = {}
        self._numbers = 0
        self._networks: Networks | None = None
        """Where networks are; None while endpoints see this node's address."""

    def start(self) -> None:
        """Start the worker processes; the caller's own loop needs no start.

        Returns before they run; what is opened meanwhile waits.
        """
        self._workers.start()

    def open_group(self, label: str) -> Group:
        """Return a group for a Service port; :meth:`serve` makes it known to workers."""
        self._numbers += 1
        return Group(self._numbers, label)

    def serve(self, group: Group, serving: Serving, wanted: Mapping[Hashable, Wanted]) -> Answer:
        """Serve a Service port in this way from now on, at these addresses.

        Listeners serve, refuse or drop at once, by what there is to serve. A key that another
        group's listener has takes that one over, and no client notices: open TCP connections stay
        with their group, UDP flows end, and clients that wait to be accepted are the new group's.
        A listener whose key isn't wanted any more goes on until :meth:`close_unwanted`.

        Args:
            group: Whose endpoints and counters these are.
            serving: Its endpoints, and how they are chosen.
            wanted: Its listeners, by keys of the caller's, which are unique in the plane; those
                that are open stay as they are.

        Returns:
            What listens, and why the rest doesn't, or refuses. Call again to try again.
        """
        self._listeners.prepare(group, serving, wanted)
        if group.number not in self._groups:
            self._groups[group.number] = group
            group.change(serving)
            self._workers.send_all(group.opening())
        elif (change := group.change(serving)) is not None:
            self._workers.send_all(change)
        return self._listeners.follow(group, wanted)

    def close_unwanted(self) -> list[Listener]:
        """Close the listeners that no group wants any more; returns them."""
        return self._listeners.close_unwanted()

    def close_group(self, group: Group) -> list[Listener]:
        """Close a group's listeners, and forget it; returns them. Idempotent.

        Open TCP connections go on, UDP flows end.
        """
        closed = self._listeners.close_group(group)
        if self._groups.pop(group.number, None) is not None:
            self._workers.send_all(CloseGroup(group.number))
        return closed

    def preserve(self, networks: Networks | None) -> None:
        """Have endpoints see their clients' own addresses, where answers come back by this node.

        Args:
            networks: Where networks are; None: endpoints see this node's address.
        """
        old, self._networks = self._networks or {}, networks
        new = networks or {}
        removed = [text for text in old if text not in new]
        added = {text: place for text, place in new.items() if old.get(text) != place}
        self._workers.send_all(Preserve(networks is not None, removed, added))

    def settle(self) -> None:
        """Bring those counters up to date that can be read without waiting."""
        self._workers.settle()

    async def refresh(self) -> None:
        """Bring all counters up to date; call before reading them."""
        await self._workers.refresh()

    def state(self) -> PlaneState:
        """Return how it is doing."""
        return self._workers.state()

    async def drain(self, seconds: float) -> int:
        """Wait until the open connections have ended, then reset what is left.

        Close the groups first.

        Returns:
            How many connections had to be reset.
        """
        return await self._workers.drain(seconds)

    def close(self) -> None:
        """Close every socket at once; open connections are reset. Idempotent."""
        self._workers.close()
        self._listeners.close_all()

    # -- for the workers -----------------------------------------------------

    def tell(self, worker: int) -> None:
        """Send a worker that has just begun all that there is to know."""
        send = self._workers.send
        if self._networks is not None:
            send(worker, Preserve(True, [], dict(self._networks)))
        for group in self._groups.values():
            send(worker, group.opening())
        self._listeners.tell(worker)

    def add(self, worker: int, report: GroupReport) -> None:
        """Add what a worker has counted for a group."""
        group = self._groups.get(report.group)
        if group is not None:
            group.add(worker, report, self._clock())

    def closed_by(self, worker: int, listener: int) -> None:
        """Note that a worker has closed its copy of a listener's socket."""
        self._listeners.closed_by(worker, listener)

    def worker_ended(self, worker: int) -> None:
        """Note that a worker holds nothing any more."""
        for group in self._groups.values():
            group.worker_ended(worker)
        self._listeners.worker_ended(worker)
