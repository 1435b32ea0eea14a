"""The worker's side: a data plane that carries out commands and reports what it counted.

Rule 1: it opens no port: the sockets that it serves come to it, listening.
Rule 2: whether a socket listens is the control process's affair; a worker only accepts, or
stops accepting.
Rule 3: when the control process has gone it ends at once, and the ports are free.
Rule 4: what one worker learns of an endpoint by failing, the others needn't.
Rule 5: signals that are meant for the service are the control process's: it says when to stop.
"""

from __future__ import annotations

import _socket
import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from itertools import islice
from typing import Any, TypeVar

import uvloop

from ...model import Balance, Protocol, SocketAddress
from ..dataplane import DataPlane
from ..group import EndpointGroup
from ..serving import Serving
from ..tcp_listener import TcpListener
from ..tuning import Tuning
from ..udp import UdpListener
from .channel import Channel
from .forwarding import ForwardingHandler, take_levels
from .messages import (
    ChangeGroup,
    CloseGroup,
    CloseListener,
    Counted,
    Drain,
    Drained,
    Ejected,
    GroupReport,
    ListenerClosed,
    Logged,
    Message,
    MoveListener,
    OpenGroup,
    OpenListener,
    PauseListener,
    Preserve,
    Report,
    ResumeListener,
    Returned,
    Running,
    Start,
)
from .privileges import become_unprivileged
from .tally import Tally

# Log lines beyond this are lost rather than kept: the log is slower than what it reports.
_MAX_LOG_WAITING_BYTES = 1024 * 1024
# Some tenths of a millisecond.
_CONNECTIONS_A_TURN = 512
_GROUPS_A_TURN = 256
# Opened within some seconds: a start, of which most stays.
_MANY_GROUPS = 256

_log = logging.getLogger("userspace_proxy.dataplane")

_T = TypeVar("_T")


def run_worker(descriptor: int) -> int:
    """Carry traffic until the command to stop; returns the exit status.

    Args:
        descriptor: Of the channel to the control process; closed in the end.
    """
    stop = (signal.SIGINT, signal.SIGTERM)
    for number in (*stop, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(socket.socket(fileno=descriptor)))


async def _run(sock: socket.socket) -> int:
    worker = Worker(asyncio.get_running_loop(), sock)
    try:
        return await worker.ended
    finally:
        worker.close()


class Worker:
    """One worker.

    Args:
        loop: Everything runs in it.
        sock: To the control process; the worker closes it.
        confine: Gives up privileges, before the first socket comes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        confine: Callable[..., None] = become_unprivileged,
    ) -> None:
        self.ended: asyncio.Future[int] = loop.create_future()
        """The exit status, in the end."""
        self._loop = loop
        self._confine = confine
        self._index = 0
        self._plane: DataPlane | None = None
        self._groups: dict[int, EndpointGroup] = {}
        self._tallies: dict[int, Tally] = {}
        self._listeners: dict[int, TcpListener | UdpListener] = {}
        self._opened = 0
        """Groups since the last report."""
        self._dropped_lines = 0
        """Log lines for which there was no room since the last one that was sent."""
        self._reports: list[Iterator[None]] = []
        self._draining: asyncio.Task[None] | None = None
        self._channel = Channel(
            loop,
            sock,
            receive=self._on_message,
            lost=self._on_lost,
            read_for=self._count_turn,
        )
        self._handlers: dict[type, Callable[[Any, list[int]], None]] = {
            Start: self._start,
            Preserve: self._preserve,
            OpenGroup: self._open_group,
            ChangeGroup: self._change_group,
            CloseGroup: self._close_group,
            OpenListener: self._open_listener,
            MoveListener: self._move_listener,
            PauseListener: self._pause_listener,
            ResumeListener: self._resume_listener,
            CloseListener: self._close_listener,
            Ejected: self._eject,
            Returned: self._take_back,
            Report: self._report,
            Drain: self._drain,
        }

    def close(self) -> None:
        """Close everything; connections are reset. Idempotent."""
        self._channel.close()
        for listener in self._listeners.values():
            listener.close()
        self._listeners.clear()
        if self._plane is not None:
            self._plane.close()

    def _count_turn(self, seconds: float) -> None:
        """Count a turn that isn't the reactor's with those that are."""
        if self._plane is not None:
            self._plane.reactor.turns.add(seconds)

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        try:
            self._handlers[type(message)](message, descriptors)
        except Exception:  # noqa: BLE001 - whatever it is, the plan is not in force here
            # It would serve something else than the control process thinks: a new one won't.
            _log.exception("worker failed to apply a command, exiting")
            self._end(1)

    def _on_lost(self) -> None:
        self._end(1)

    def _end(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    # -- commands ------------------------------------------------------------

    def _start(self, message: Start, _descriptors: list[int]) -> None:
        self._index = message.worker
        take_levels(message.log_levels, ForwardingHandler(self._log))
        plane = DataPlane(self._loop, Tuning(**message.tuning))
        self._confine(keeps_net_raw=message.keeps_net_raw)
        self._plane = plane
        # What was imported lives as long as the process: the collector need not look at it.
        gc.collect()
        gc.freeze()
        self._channel.send(Running(os.getpid(), os.geteuid()))

    def _preserve(self, message: Preserve, _descriptors: list[int]) -> None:
        assert self._plane is not None, "Start comes first"
        preserving = self._plane.preserving
        preserving.is_on = message.is_on
        preserving.places.change(message.removed, message.added)

    def _open_group(self, message: OpenGroup, _descriptors: list[int]) -> None:
        group = EndpointGroup(message.label, _serving(message.serving), start=self._index)
        number, send = message.group, self._channel.send
        group.on_ejected = lambda endpoint, is_silent: send(Ejected(number, endpoint, is_silent))
        group.on_returned = lambda endpoint: send(Returned(number, endpoint))
        self._groups[number] = group
        self._tallies[number] = Tally(group)
        self._opened += 1
        if self._opened == _MANY_GROUPS:
            # A full collection would take longer with each, and clients would wait for it.
            gc.freeze()
            self._opened = 0

    def _change_group(self, message: ChangeGroup, _descriptors: list[int]) -> None:
        group = self._groups[message.group]
        tally = self._tallies[message.group]
        tally.take()
        removed = set(_addresses(message.removed))
        endpoints = [e for e in group.serving.endpoints if e not in removed]
        for place, address in message.added:
            endpoints.insert(place, SocketAddress(*address))
        known = {f.name: getattr(group.serving, f.name) for f in fields(Serving)}
        group.update(_serving({**known, **message.others, "endpoints": endpoints}))
        tally.note_gone()

    def _close_group(self, message: CloseGroup, _descriptors: list[int]) -> None:
        self._groups.pop(message.group, None)
        self._tallies.pop(message.group, None)

    def _open_listener(self, message: OpenListener, descriptors: list[int]) -> None:
        assert self._plane is not None, "Start comes first"
        sock = _socket.socket(fileno=descriptors[0])
        sock.setblocking(False)
        protocol = Protocol(message.protocol)
        kind = TcpListener if protocol is Protocol.TCP else UdpListener
        group = self._groups[message.group]
        try:
            listener = kind(self._plane, group, sock, SocketAddress(message.ip, message.port))
        except OSError as exc:
            # The epoll takes no more: better no worker than one that doesn't serve all.
            sock.close()
            _log.error("cannot serve a listener", extra={"cause": str(exc)})
            self._end(1)
            return
        if isinstance(listener, TcpListener) and not message.is_serving:
            listener.pause()
        self._listeners[message.listener] = listener
        self._plane.descriptors.take(1)

    def _move_listener(self, message: MoveListener, _descriptors: list[int]) -> None:
        listener = self._listeners.get(message.listener)
        # Else a UDP port that refuses: it comes with its group when it serves again.
        if listener is not None:
            listener.hand_over(self._groups[message.group])

    def _pause_listener(self, message: PauseListener, _descriptors: list[int]) -> None:
        listener = self._listeners.get(message.listener)
        if isinstance(listener, TcpListener):
            listener.pause()

    def _resume_listener(self, message: ResumeListener, _descriptors: list[int]) -> None:
        listener = self._listeners.get(message.listener)
        if isinstance(listener, TcpListener):
            listener.resume()

    def _close_listener(self, message: CloseListener, _descriptors: list[int]) -> None:
        listener = self._listeners.pop(message.listener, None)
        if listener is not None and self._plane is not None:
            # The control process holds the socket, too: closing takes it out of no epoll.
            self._plane.reactor.unregister(listener.sock)
            listener.close()
            self._plane.descriptors.give(1)
        self._channel.send(ListenerClosed(message.listener))

    def _eject(self, message: Ejected, _descriptors: list[int]) -> None:
        group = self._groups.get(message.group)
        if group is not None and self._plane is not None:
            group.balancer.failed(
                SocketAddress(*message.endpoint),
                self._plane.reactor.clock(),
                is_silent=message.is_silent,
            )

    def _take_back(self, message: Returned, _descriptors: list[int]) -> None:
        group = self._groups.get(message.group)
        if group is not None:
            group.balancer.answered(SocketAddress(*message.endpoint))

    def _drain(self, message: Drain, _descriptors: list[int]) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._drained(message.seconds))

    async def _drained(self, seconds: float) -> None:
        reset = await self._plane.drain(seconds) if self._plane is not None else 0
        self._channel.send(Drained(reset))
        self._end(0)

    # -- news ----------------------------------------------------------------

    def _log(self, line: Logged) -> None:
        if self._channel.waiting_bytes >= _MAX_LOG_WAITING_BYTES:
            self._dropped_lines += 1
            return
        if self._dropped_lines:
            count, self._dropped_lines = self._dropped_lines, 0
            text = "log lines of a worker were dropped: the control process did not read them"
            fields = {"worker": self._index, "count": count}
            self._channel.send(Logged(_log.name, logging.WARNING, line.created, text, fields, ""))
        self._channel.send(line)

    def _report(self, message: Report, _descriptors: list[int]) -> None:
        self._opened = 0
        self._reports.append(self._reporting(message.number))
        if len(self._reports) == 1:
            self._go_on_reporting()

    def _go_on_reporting(self) -> None:
        began = time.monotonic()
        if next(self._reports[0], self) is self:
            self._reports.pop(0)
        self._count_turn(time.monotonic() - began)
        if self._reports and not self.ended.done():
            self._loop.call_soon(self._go_on_reporting)

    def _reporting(self, number: int) -> Iterator[None]:
        """Make a report a slice at a time: thousands of connections and groups take long."""
        plane = self._plane
        assert plane is not None, "Start comes first"
        for connections in _slices(list(plane.connections), _CONNECTIONS_A_TURN):
            for connection in connections:
                connection.settle()
            yield
        for listener in self._listeners.values():
            listener.settle()
        groups: list[GroupReport] = []
        for tallies in _slices(list(self._tallies.items()), _GROUPS_A_TURN):
            for key, tally in tallies:
                tally.take()
                if (report := tally.give(key, plane.reactor.clock())) is not None:
                    groups.append(report)
            yield
        descriptors = plane.descriptors
        self._channel.send(
            Counted(
                number,
                groups,
                len(plane.connections),
                len(plane.flows),
                descriptors.in_use,
                descriptors.limit,
                descriptors.is_accepting,
                plane.reactor.turns.counts(),
                plane.reactor.turns.seconds,
            )
        )


def _serving(values: dict[str, Any]) -> Serving:
    """Return the value whose fields came as a message."""
    outside = values["outside"]
    return Serving(
        endpoints=tuple(_addresses(values["endpoints"])),
        affinity_timeout_s=values["affinity_timeout_s"],
        outside=None if outside is None else tuple(_addresses(outside)),
        inside=tuple(values["inside"]),
        admits=None if values["admits"] is None else tuple(values["admits"]),
        balance=Balance(values["balance"]),
        keeps_clients=values["keeps_clients"],
    )


def _addresses(items: Sequence[Sequence[Any]]) -> list[SocketAddress]:
    return [SocketAddress(*item) for item in items]


def _slices(items: list[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part
