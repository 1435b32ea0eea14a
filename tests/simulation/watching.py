"""Has oracles learn what the data plane does that shows in no system call.

What is replaced calls the original; nothing changes for the data plane.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from userspace_proxy.balance import affinity
from userspace_proxy.dataplane import (
    connection_log,
    shedding,
    tcp,
    tcp_dial,
    udp,
    waiting_room,
)
from userspace_proxy.model import SocketAddress
from userspace_proxy.plane import record_ring
from userspace_proxy.plane.messages import OBSERVED_MAX

from .attempts import ejected_as
from .sockets import core_of

if TYPE_CHECKING:
    from .services import Service
    from .sockets import SimulatedSocket
    from .world import World


_Changed = tuple[Any, str, Any, Any]
"""An owner, the name of an attribute of it, what replaces that, and what it was."""


class News:
    """Part of GroupNews: what a worker tells others of one Service port."""

    def __init__(self, world: World, service: Service) -> None:
        self._world = world
        self._service = service

    def ejected(self, endpoint: SocketAddress, *, is_silent: bool) -> None:
        """Part of GroupNews."""
        self._service.peer.ejected(endpoint, self._world.reactor.now, is_silent=is_silent)
        self._world.choices.reported(self._service, ejected_as(is_silent=is_silent), endpoint)

    def returned(self, endpoint: SocketAddress) -> None:
        """Part of GroupNews."""
        self._service.peer.returned(endpoint, self._world.reactor.now)
        self._world.choices.reported(self._service, "returned", endpoint)

    def waiting(self) -> None:
        """Part of GroupNews."""
        self._world.choices.reported_wait(self._service)


@contextlib.contextmanager
def watching(world: World) -> Iterator[None]:
    """Have the data plane's connections report to the oracles of a world while this lasts."""
    connection, dial, room = tcp.TcpConnection, tcp_dial.TcpDial, waiting_room.WaitingRoom
    begin, join = connection.begin, connection.join
    connect, wait, pick_again = dial._connect, room.wait, dial._pick_again

    def begins(self: Any) -> None:
        world.choices.begins(core_of(self.client), self.client_ip)
        begin(self)

    def joins(self: Any, sock: SimulatedSocket, events: int) -> None:
        world.oracles.joined(self, sock)
        join(self, sock, events)  # type: ignore[arg-type]

    def connects(self: Any, endpoint: SocketAddress) -> Any:
        world.choices.sends(core_of(self._connection.client), endpoint)
        try:
            return connect(self, endpoint)
        finally:
            world.choices.sent()

    def picks_again(self: Any) -> None:
        world.choices.finds_none(core_of(self._connection.client))
        pick_again(self)

    def waits(self: Any, waiter: Any, *args: Any, **options: Any) -> None:
        core = core_of(waiter._connection.client) if isinstance(waiter, dial) else None
        if core is not None:
            world.choices.waits(core)
        else:
            world.datagrams.ends.will_wait(waiter, is_new=waiter not in self._clients)
        wait(self, waiter, *args, **options)
        if core is None:
            world.datagrams.ends.waits(waiter)
            world.flow_choices.waits(waiter)
        else:
            world.choices.has_place(core)
            client = world.clients[core.remote[1] - 20000]
            world.counts.waits(client.number, client.service)

    changed: tuple[_Changed, ...] = (
        (record_ring, "OBSERVED_MAX", world.plan.node.records, OBSERVED_MAX),
        (connection, "begin", begins, begin),
        (connection, "join", joins, join),
        (dial, "_connect", connects, connect),
        (dial, "_pick_again", picks_again, pick_again),
        (room, "wait", waits, wait),
    )
    parts = _watching_flows(world), _watching_pins(world), _logging_all()
    with _replaced(changed), parts[0], parts[1], parts[2]:
        yield


@contextlib.contextmanager
def _watching_pins(world: World) -> Iterator[None]:
    table, shed = affinity.AffinityTable, shedding.Shedding
    forget, free = table.forget_oldest, shed.free_memory

    def forgets(self: Any) -> None:
        world.pins.forgets(self, partial(forget, self))

    def frees(self: Any, *args: Any) -> int:
        return world.pins.free_memory(partial(free, self), *args)

    changed: tuple[_Changed, ...] = (
        (table, "forget_oldest", forgets, forget),
        (shed, "free_memory", frees, free),
    )
    with _replaced(changed):
        yield


@contextlib.contextmanager
def _logging_all() -> Iterator[None]:
    """Have all ends logged, and only those observed that would be if none were logged."""
    log = connection_log.ConnectionLog
    takes, write = log.takes_next, log.write

    def takes_next(self: Any, *args: Any, **options: Any) -> bool:
        share, self._share = self._share, 0.0
        self._is_left_out = not takes(self, *args, **options)
        self._share = share
        self._logs_next = share > 0
        return self._logs_next or not self._is_left_out

    def writes(self: Any, *args: Any) -> None:
        watch = self._watch
        if self._logs_next and self._is_left_out:
            self._watch = None
        try:
            write(self, *args)
        finally:
            self._watch = watch

    changed: tuple[_Changed, ...] = (
        (log, "takes_next", takes_next, takes),
        (log, "write", writes, write),
    )
    with _replaced(changed):
        yield


@contextlib.contextmanager
def _watching_flows(world: World) -> Iterator[None]:
    listener = udp.UdpListener
    end, find, dial_flow = listener.end, listener._connect, listener._dial
    refuse, leave = listener.endpoint_refused, listener._leave_endpoint

    def ends(self: Any, flow: Any, cause: Any, *args: Any) -> None:
        if not flow.is_ended:
            core = None if flow.sock is None else core_of(flow.sock)
            world.datagrams.ends.ends(core, flow, cause)
        end(self, flow, cause, *args)
        world.flow_choices.ended(flow)

    def finds(self: Any, flow: Any) -> bool:
        with world.flow_choices.dials(flow) as found:
            found.append(find(self, flow))
        return found[0]

    def dials_flow(self: Any, flow: Any, endpoint: SocketAddress) -> Any:
        with world.flow_choices.dial(flow, endpoint) as answer:
            answer.append(dial_flow(self, flow, endpoint))
        return answer[0]

    def refuses(self: Any, flow: Any, failed: Any) -> None:
        world.flow_choices.refused(flow, failed.failure)
        refuse(self, flow, failed)

    def leaves(self: Any, flow: Any, **options: Any) -> None:
        world.flow_choices.leaves(flow)
        leave(self, flow, **options)

    changed: tuple[_Changed, ...] = (
        (listener, "end", ends, end),
        (listener, "_connect", finds, find),
        (listener, "_dial", dials_flow, dial_flow),
        (listener, "endpoint_refused", refuses, refuse),
        (listener, "_leave_endpoint", leaves, leave),
    )
    with _replaced(changed):
        yield


@contextlib.contextmanager
def _replaced(changed: Iterable[_Changed]) -> Iterator[None]:
    for owner, name, new, _ in changed:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, _, old in changed:
            setattr(owner, name, old)
