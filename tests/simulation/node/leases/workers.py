"""Workers of nodes, and what an agent has of them: they lead clients to endpoints, and count.

    agent ──serve──▶ [channel] ──▶ worker ◀── clients
          ◀──reports, first waits── [channel] ◀──┘

Rule 1: messages arrive in their order, a moment later; a worker that is busy does nothing until it
isn't, and then all in the order in which it was due.
Rule 2: a worker that outlives its agent reports to no one, and follows nothing.
Rule 3: a dial takes as long as its pod takes to answer, but not longer than ``DIAL_S``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from userspace_proxy.facts import EndpointCounters, GroupCounters
from userspace_proxy.model import PortKey, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Answer, Group
from userspace_proxy.plane.messages import REPORT_S, EndpointReport, GroupReport, WaitingReport

from .clients import CONNECTED, DIALLING, DONE, NEW, WAITING, Client

if TYPE_CHECKING:
    from .world import World

DIAL_S = 1.0
"""The connect timeout."""
_LATENCY_S = 0.001
_AGAIN_S = 1.0
_REFRESH_S = 1.0
_NAMES = EndpointCounters.names
_GROUP_NAMES = GroupCounters.names


class WorkerPort:
    """A Service port in a worker."""

    def __init__(self, number: int, key: PortKey) -> None:
        self.number = number
        self.service = f"{key.name.service.namespace}/{key.name.service.name}"
        self.serving = Serving()
        self.waiting: dict[Client, None] = {}
        self.connected: dict[Client, SocketAddress] = {}
        self.opened: Counter[SocketAddress] = Counter()
        """Connections since the last report."""
        self.active: Counter[SocketAddress] = Counter()
        """How many more are open than at the last report."""
        self.waited = 0
        self.is_changed = False

    def report(self, now: float) -> GroupReport:
        """Return what was counted since the last one."""
        ends = [
            EndpointReport(end, _figures(connections=self.opened[end], active=self.active[end]))
            for end in {**self.opened, **self.active}
        ]
        since = min((client.waits_since for client in self.waiting), default=now)
        waiting = WaitingReport(len(self.waiting), now - since) if self.waiting else None
        counted = {"waits.total": self.waited}
        figures = tuple(counted.get(name, 0) for name in _GROUP_NAMES)
        self.opened.clear()
        self.active.clear()
        self.waited, self.is_changed = 0, False
        return GroupReport(self.number, figures, ends, waiting=waiting)


def _figures(**counted: int) -> tuple[int, ...]:
    return tuple(counted.get(name, 0) for name in _NAMES)


class Channel:
    """One way of a connection between processes; what is sent arrives in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._last_at = 0.0

    def send(self, call: Callable[..., object], *args: Any) -> None:
        """Have something called at the other end."""
        timeline = self._world.timeline
        at = timeline.now + _LATENCY_S * self._world.rng.random()
        self._last_at = at = max(at, self._last_at)
        timeline.at(at, call, *args)


class Worker:
    """One worker process of a node."""

    def __init__(self, world: World, name: str, plane: NodePlane) -> None:
        self.world = world
        self.name = name
        self.ports: dict[int, WorkerPort] = {}
        self.plane: NodePlane | None = plane
        """None: its agent has died."""
        self.is_dead = False
        self.is_accepting = True
        self.busy_until = 0.0
        self.stumbles: Callable[[], float] | None = None
        """Called once it has answered for the next time: it is busy for so many seconds then."""
        self.stalls_s = 0.0
        """So long it is busy once it is asked for the next time, before it answers."""
        self._to_agent = Channel(world)

    # -- what the agent sends ----------------------------------------------------------------------

    def serve(self, number: int, key: PortKey, serving: Serving) -> None:
        self._do(self._serve, number, key, serving)

    def close_group(self, number: int) -> None:
        self._do(self._close_group, number)

    def ask(self, number: int) -> None:
        self._do(self._report, number)

    def _do(self, call: Callable[..., object], *args: Any) -> None:
        """Do something unless it is busy, or dead."""
        if self.is_dead:
            return
        if self.busy_until > self.world.now:
            self.world.timeline.at(self.busy_until, self._do, call, *args)
            return
        call(*args)

    def _serve(self, number: int, key: PortKey, serving: Serving) -> None:
        port = self.ports.get(number)
        if port is None:
            port = self.ports[number] = WorkerPort(number, key)
        port.serving = serving
        for client in list(port.waiting):
            client.tried.clear()
            self._dial(port, client)

    def _close_group(self, number: int) -> None:
        port = self.ports.pop(number, None)
        if port is None:
            return
        # Clients that wait are refused, and so are those that this worker has yet to serve.
        port.serving = Serving()
        for client in list(port.waiting):
            self._finish(client)
        self.world.checks.port_closed(self, port)

    def _report(self, number: int) -> None:
        now = self.world.now
        if self.stalls_s:
            self.busy_until, self.stalls_s = now + self.stalls_s, 0.0
            self._do(self._report, number)
            return
        reports = [p.report(now) for p in self.ports.values() if p.is_changed or p.waiting]
        if (plane := self.plane) is not None:
            self._to_agent.send(plane.counted, number, reports)
        if (stumbles := self.stumbles) is not None:
            self.stumbles = None
            self.busy_until = now + stumbles()

    # -- its clients -------------------------------------------------------------------------------

    def serves(self, service: str) -> WorkerPort | None:
        """Return the port of a Service, if it takes clients there."""
        if self.is_dead or not self.is_accepting:
            return None
        return next((port for port in self.ports.values() if port.service == service), None)

    def accept(self, port: WorkerPort, client: Client) -> None:
        """Take a client of a Service port."""
        client.worker = self
        self._do(self._dial, port, client)

    def _dial(self, port: WorkerPort, client: Client) -> None:
        if client.state not in (NEW, WAITING):
            return
        ends = [end for end in port.serving.endpoints if end.ip not in client.tried]
        if not ends:
            self._wait(port, client)
            return
        end = self.world.rng.choice(ends)
        if client in port.waiting:
            del port.waiting[client]
            port.is_changed = True
        self.world.set_state(client, DIALLING)
        dial_s = self.world.dial_s(client)
        self.world.timeline.after(dial_s, self._do, self._answered, port, client, end)

    def _answered(self, port: WorkerPort, client: Client, end: SocketAddress) -> None:
        if client.state != DIALLING:
            return
        pod = self.world.workloads.pods[end.ip]
        if not pod.is_serving:
            client.tried.add(end.ip)
            client.state = NEW
            self._dial(port, client)
            return
        client.pod = pod
        port.connected[client] = end
        port.opened[end] += 1
        port.active[end] += 1
        port.is_changed = True
        self.world.set_state(client, CONNECTED)
        self.world.timeline.after(client.stay_s, self._do, self.leave, client)

    def _wait(self, port: WorkerPort, client: Client) -> None:
        if port.serving.handling.hold is None:
            self._finish(client)
            return
        if client not in port.waiting:
            port.waiting[client] = None
            port.waited += 1
            port.is_changed = True
            if client.waits_since == 0.0:
                client.waits_since = self.world.now
                patience_s = min(client.patience_s, port.serving.handling.hold.seconds)
                self.world.timeline.after(patience_s, self._do, self._give_up, client)
            self.world.set_state(client, WAITING)
            if len(port.waiting) == 1 and (plane := self.plane) is not None:
                self._to_agent.send(plane.wait_began, port.number)
        if client.tried:
            self.world.timeline.after(_AGAIN_S, self._do, self._try_again, port, client)

    def _try_again(self, port: WorkerPort, client: Client) -> None:
        client.tried.clear()
        self._dial(port, client)

    def _give_up(self, client: Client) -> None:
        if client.state == WAITING:
            self._finish(client)

    def leave(self, client: Client) -> None:
        """Close a client's connection."""
        if client.state == CONNECTED:
            self._finish(client)

    def _finish(self, client: Client) -> None:
        for port in self.ports.values():
            if client in port.waiting:
                del port.waiting[client]
                port.is_changed = True
            if (end := port.connected.pop(client, None)) is not None:
                port.active[end] -= 1
                port.is_changed = True
        self.world.set_state(client, DONE)

    # -- its end -----------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Accept nothing more, and end after that time."""
        self.is_accepting = False
        self.world.timeline.after(seconds, self.die)

    def die(self) -> None:
        """End, with all connections."""
        self.is_dead = True
        for client in self.world.clients:
            if client.worker is self and client.state != DONE:
                self.world.set_state(client, DONE)


class NodePlane:
    """What an agent has of its worker: part of Plane."""

    def __init__(self, world: World, node: str, process: Any) -> None:
        self.on_waits: Callable[[Group], None] = lambda _group: None
        self.groups: dict[int, Group] = {}
        self.world = world
        self._node = node
        self._process = process
        self._numbers = 0
        self._asked: dict[int, asyncio.Future[None]] = {}
        self._asks = 0
        self._next_report = 0.0
        self.worker: Worker
        self._to_worker: Channel
        self.start_worker()
        self._look()

    def start_worker(self) -> None:
        """Start a worker that knows what is served, instead of one that has died."""
        self.worker = Worker(self.world, self._node, self)
        self._to_worker = Channel(self.world)
        for number, group in self.groups.items():
            group.worker_ended(0)
            self._to_worker.send(self.worker.serve, number, group.key, group.serving)
        for waiting in self._asked.values():
            waiting.set_result(None)
        self._asked.clear()

    def _look(self) -> None:
        """Ask for a report if one is due."""
        if self._process.is_dead:
            return
        if not self._asked:
            with self._process:
                self._ask()
        self.world.timeline.after(REPORT_S, self._look)

    # -- what the agent calls ----------------------------------------------------------------------

    def open_group(self, key: PortKey) -> Group:
        """Part of Plane."""
        self._numbers += 1
        return Group(self._numbers, key)

    def serve(self, group: Group, serving: Serving, wanted: Mapping[Hashable, object]) -> Answer:
        """Part of Plane."""
        del wanted
        is_new = group.number not in self.groups
        self.groups[group.number] = group
        change = group.change(serving, self.world.now)
        if is_new or change is not None:
            ends = ", ".join(end.ip for end in serving.endpoints)
            self.world.note(f"agent {self._node}: serves {group.key} by {ends or 'none'}")
            self.world.checks.serves(self._node, group.key.name.service, serving)
            self._to_worker.send(self.worker.serve, group.number, group.key, serving)
        return Answer({}, {})

    def close_group(self, group: Group) -> list[Any]:
        """Part of Plane."""
        if self.groups.pop(group.number, None) is not None:
            group.change(Serving(), self.world.now)
            self._to_worker.send(self.worker.close_group, group.number)
        return []

    def close_unwanted(self) -> list[Any]:
        """Part of Plane."""
        return []

    def close_recovered(self) -> None:
        """Part of Plane."""

    def settle(self) -> None:
        """Part of Plane: only a worker in the agent's own loop has something to say at once."""

    async def refresh(self) -> None:
        """Part of Plane."""
        asked = self._ask()
        await asyncio.wait([asked], timeout=_REFRESH_S)

    def _ask(self) -> asyncio.Future[None]:
        self._asks += 1
        asked: asyncio.Future[None] = self._process.loop.create_future()
        self._asked[self._asks] = asked
        self._to_worker.send(self.worker.ask, self._asks)
        return asked

    # -- what the worker sends ---------------------------------------------------------------------

    def counted(self, number: int, reports: list[GroupReport]) -> None:
        """Take a report."""
        if self._process.is_dead:
            return
        with self._process:
            for report in reports:
                if (group := self.groups.get(report.group)) is not None:
                    group.add(0, report, self.world.now)
            asked = self._asked.pop(number, None)
            if asked is not None and not asked.done():
                asked.set_result(None)

    def wait_began(self, number: int) -> None:
        """Take the news that a client waits."""
        group = self.groups.get(number)
        if group is not None and not self._process.is_dead:
            with self._process:
                self.on_waits(group)
