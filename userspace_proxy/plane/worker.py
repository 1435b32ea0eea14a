"""Carries out the control process's commands on a data plane, and reports its counts.

Rule 1: a worker opens no ports. It receives listening sockets; a UDP port refuses clients only once
each worker has closed its copy.
Rule 2: when a worker ejects an endpoint, or an ejected endpoint answers, the other workers are
notified.
"""

from __future__ import annotations

import _socket
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from msgspec.structs import replace

from ..clocks import Clocks
from ..dataplane import AnyListener, DataPlane, EndpointGroup, UdpListener
from ..model import SocketAddress
from ..model.serving import Serving
from .differences import Differences
from .messages import (
    AffinityEntries,
    Called,
    ChangeGroup,
    CloseGroup,
    CloseListener,
    Counted,
    Drain,
    Drained,
    Ejected,
    FromWorker,
    GroupReport,
    ListenerClosed,
    MoveListener,
    Observe,
    OpenGroup,
    OpenListener,
    Prefer,
    Preserve,
    Report,
    Returned,
    Status,
    ToWorker,
    WaitBegan,
)
from .record_ring import RecordRing
from .substitutes import Substitutes

# The maximum number of groups in a slice of a report, which takes some tenths of a millisecond.
_GROUPS_PER_ITERATION = 256
# A message is complete once it has this many endpoints. Its last group may report 10,000 endpoints,
# and all of them as ejected: at most 300 bytes each, which stays below ``channel.MAX_FRAME_BYTES``.
# Both processes need 3 KB of memory per endpoint, and keep it: 5,000 endpoints cost 10 MB.
_ENDPOINTS_A_MESSAGE = 500
# The maximum number of affinity entries in a message, of about 60 bytes each; they take 2 ms.
_ENTRIES_A_MESSAGE = 1000
# How long a draining worker still relays endpoints' replies to UDP clients. It no longer receives
# datagrams from clients, because the next worker shares its sockets.
_REPLIES_S = 2.0


class _News:
    """Sends one group's ejections, readmissions and waits to the control process."""

    __slots__ = ("_number", "_send")

    def __init__(self, number: int, send: Callable[[FromWorker], None]) -> None:
        self._number = number
        self._send = send

    def ejected(self, endpoint: SocketAddress, *, is_silent: bool) -> None:
        self._send(Ejected(self._number, endpoint, is_silent))

    def returned(self, endpoint: SocketAddress) -> None:
        self._send(Returned(self._number, endpoint))

    def waiting(self) -> None:
        self._send(WaitBegan(self._number))


class Worker:
    """One worker, which owns its data plane; its round robin begins at its index.

    A worker in its own process closes its sockets, and sends a report in slices, so that clients
    don't wait; reports requested in the meantime are merged. In the caller's loop, the caller
    closes the sockets, and a report is sent before the command returns.
    """

    def __init__(
        self,
        index: int,
        dataplane: DataPlane,
        send: Callable[[FromWorker], None],
        *,
        has_process: bool = False,
    ) -> None:
        self._index = index
        self._dataplane = dataplane
        self._send = send
        self._has_process = has_process
        self._groups: dict[int, EndpointGroup] = {}
        self._labelled: dict[str, int] = {}
        """The number of the last group opened under each label."""
        self._differences: dict[int, Differences] = {}
        """The unreported counts by group, only of groups with clients, ejections or changes."""
        self._listeners: dict[int, AnyListener] = {}
        self._ring = RecordRing(dataplane.engine)
        self._slices: Iterator[None] | None = None
        """The remaining slices of the current report."""
        self._asked = 0
        """The number of the last report requested while another is being sent; its answer covers
        all such requests. 0 without a request."""
        self._is_closed = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            Preserve: self._preserve,
            OpenGroup: self._open_group,
            ChangeGroup: self._change_group,
            Prefer: lambda message: self._groups[message.group].balancers.prefer(message.endpoint),
            CloseGroup: self._close_group,
            MoveListener: self._move_listener,
            CloseListener: self._close_listener,
            Ejected: self._eject,
            Returned: self._end_ejection,
            AffinityEntries: self._restore_entries,
            Report: self._report,
            Observe: lambda message: self._send(self._ring.observe(message.filters)),
            Drain: self._drain,
        }

    def apply(self, message: ToWorker, sock: _socket.socket | None = None) -> None:
        """Carry out a command, with its socket if it has one.

        Raises:
            OSError: The kernel refuses to add a listener to the epoll.
        """
        if isinstance(message, OpenListener):
            assert sock is not None, "a listener comes with its socket"
            self._listeners[message.listener] = self._dataplane.open_listener(
                self._groups[message.group], message.protocol, sock, message.at
            )
        else:
            self._handlers[type(message)](message)

    def listening(self) -> list[tuple[int, list[_socket.socket]]]:
        """Return the served sockets, grouped by the index of their worker; they stay open.

        Sockets of workers for which this worker substitutes come first, its own sockets last.
        """
        processes = self._dataplane.engine.tuning.processes
        served: dict[int, list[_socket.socket]] = {}
        for number, listener in self._listeners.items():
            missing = Substitutes.missing(number, processes)
            owner = self._index if missing is None else missing
            served.setdefault(owner, []).append(listener.sock)
        own = served.pop(self._index, [])
        return [*served.items(), (self._index, own)]

    def entries(self) -> Iterator[AffinityEntries]:
        """Yield batches of affinity entries, Service ports in turn, most recently used first."""
        now = self._dataplane.engine.clock()
        turns = deque(
            (group.label, group.balancers.current.entries(now))
            for group in self._groups.values()
            if group.serving.affinity_timeout_s is not None
        )
        while turns:
            label, entries = turns.popleft()
            if part := list(islice(entries, _ENTRIES_A_MESSAGE)):
                yield AffinityEntries(label, part)
                turns.append((label, entries))

    def status(self) -> Status:
        """Return the current state of the worker's data plane."""
        engine = self._dataplane.engine
        memory = engine.memory.state
        return Status(
            len(self._dataplane.connections.open),
            len(self._dataplane.flows.table),
            engine.descriptors.in_use,
            engine.descriptors.limit,
            engine.descriptors.is_accepting,
            engine.reactor.iterations.counts(),
            engine.reactor.iterations.seconds,
            memory.used_bytes,
            memory.limit_bytes,
            memory.is_short,
            memory.was_short,
        )

    def close(self) -> None:
        """Reset connections; close the data plane, and a worker process also its sockets."""
        self._is_closed = True
        for listener in self._listeners.values():
            self._close_socket(listener)
        self._listeners.clear()
        self._dataplane.close()

    def _preserve(self, message: Preserve) -> None:
        dialer = self._dataplane.engine.client_dialer
        dialer.is_on = message.is_on
        dialer.locality.change(message.removed, message.added)

    def _open_group(self, message: OpenGroup) -> None:
        engine = self._dataplane.engine
        group = EndpointGroup(
            message.key,
            message.serving,
            start=self._index,
            processes=engine.tuning.processes,
            entries=engine.entries,
        )
        number = message.group
        group.news = _News(number, self._send)
        self._groups[number] = group
        self._labelled[group.label] = number

    def _change_group(self, message: ChangeGroup) -> None:
        group = self._groups[message.group]
        differences = self._differences_of(message.group, group)
        if differences is not None:
            differences.begin_update()
        removed = set(message.removed)
        endpoints = [e for e in group.serving.endpoints if e not in removed]
        for index, endpoint in message.added:
            endpoints.insert(index, endpoint)
        others = group.serving if message.others is None else message.others
        left = group.update(
            replace(others, endpoints=tuple(endpoints)), self._dataplane.engine.clock()
        )
        self._dataplane.connections.removals.updated(group, left)
        if differences is not None:
            differences.end_update()

    def _close_group(self, message: CloseGroup) -> None:
        group = self._groups.pop(message.group, None)
        self._differences.pop(message.group, None)
        if group is not None:
            if self._labelled.get(group.label) == message.group:
                del self._labelled[group.label]
            # Clients that wait for the group's endpoints are refused, like later clients.
            handling = dataclasses.replace(group.serving.handling, hold=None)
            group.update(Serving(handling=handling), self._dataplane.engine.clock())

    def _move_listener(self, message: MoveListener) -> None:
        listener = self._listeners.get(message.listener)
        # A refusing listener isn't open in this worker: it is opened with its new group later.
        if listener is not None:
            listener.hand_over(self._groups[message.group])

    def _close_listener(self, message: CloseListener) -> None:
        listener = self._listeners.pop(message.listener, None)
        if listener is not None:
            self._close_socket(listener)
        self._send(ListenerClosed(message.listener))

    def _close_socket(self, listener: AnyListener) -> None:
        self._dataplane.close_listener(listener)
        if self._has_process:
            listener.sock.close()

    def _eject(self, message: Ejected) -> None:
        group = self._groups.get(message.group)
        if group is not None:
            now = self._dataplane.engine.clock()
            group.balancers.current.failed(message.endpoint, now, is_silent=message.is_silent)
            if message.group not in self._differences:
                self._differences[message.group] = Differences(group)

    def _end_ejection(self, message: Returned) -> None:
        group = self._groups.get(message.group)
        if group is not None:
            group.answered_elsewhere(message.endpoint, self._dataplane.engine.clock())

    def _restore_entries(self, message: AffinityEntries) -> None:
        now = self._dataplane.engine.clock()
        if (number := self._labelled.get(message.label)) is not None:
            self._groups[number].balancers.current.restore(message.entries, now)

    def _drain(self, message: Drain) -> None:
        dataplane, replies_s = self._dataplane, min(message.seconds, _REPLIES_S)
        if not len(dataplane.flows.table) or replies_s <= 0:
            self._end_drain(message.seconds)
            return
        for number, listener in list(self._listeners.items()):
            if isinstance(listener, UdpListener):
                listener.stop_receiving()
            else:
                self._close_socket(self._listeners.pop(number))
        rest_s = message.seconds - replies_s
        dataplane.engine.loop.call_later(replies_s, self._end_drain, rest_s)

    def _end_drain(self, seconds: float) -> None:
        """Close the remaining listeners, and drain TCP connections."""
        for listener in self._listeners.values():
            self._close_socket(listener)
        self._listeners.clear()
        self._dataplane.drain(seconds, lambda reset: self._send(Drained(reset)))

    def _report(self, message: Report) -> None:
        if not self._has_process:
            for _ in self._reporting(message.number):
                pass
            return
        self._asked = message.number
        if self._slices is None:
            self._continue_report()

    def stop_reports(self) -> None:
        """Cancel requested reports, and stop observations.

        The next control process didn't request the reports, and would reject a report with many
        endpoints as malformed.
        """
        self._slices, self._asked = None, 0
        self._ring.observe(())

    def _continue_report(self) -> None:
        if self._slices is None and self._asked:
            self._slices, self._asked = self._reporting(self._asked), 0
        if self._is_closed or self._slices is None:
            return
        began = Clocks.monotonic()
        # Sending may detect that the control process has exited, which cancels all reports by
        # setting _slices to None.
        if next(self._slices, self) is self:
            self._slices = None
        self.count_iteration(Clocks.monotonic() - began)
        if self._slices is not None or self._asked:
            self._dataplane.engine.loop.call_soon(self._continue_report)

    def count_iteration(self, seconds: float) -> None:
        """Count work outside the reactor as another of the reactor's loop iterations."""
        self._dataplane.engine.reactor.iterations.add(seconds)

    def _differences_of(self, number: int, group: EndpointGroup) -> Differences | None:
        """Return the unreported counts of a group; None if it has nothing to report."""
        differences = self._differences.get(number)
        if differences is None and group.has_news:
            differences = self._differences[number] = Differences(group)
        return differences

    def _report_of(self, number: int, now: float) -> GroupReport | None:
        group = self._groups.get(number)
        differences = None if group is None else self._differences_of(number, group)
        if group is None or differences is None:
            return None
        differences.take()
        report = differences.give(number, now)
        if report is not None:
            self._ring.note_drops(group.key, report)
        elif differences.is_at_rest:
            del self._differences[number]
        return report

    def _reporting(self, number: int) -> Iterator[None]:
        """Send a report in slices: many connections and groups take a long time."""
        yield from self._dataplane.settle()
        now = self._dataplane.engine.clock()
        groups: list[GroupReport] = []
        endpoints = 0
        rest = iter(list(self._groups))
        while part := list(islice(rest, _GROUPS_PER_ITERATION)):
            for group in part:
                if (report := self._report_of(group, now)) is None:
                    continue
                groups.append(report)
                endpoints += len(report.endpoints) + len(report.ejected)
                if endpoints >= _ENDPOINTS_A_MESSAGE:
                    self._send(Counted(0, groups, self.status()))
                    groups, endpoints = [], 0
            yield
        calls, left_out = self._dataplane.engine.calls.take()
        if calls or left_out:
            self._send(Called(calls, left_out))
        self._send(Counted(number, groups, self.status()))
