"""Owns one Service port's state on the data path, and acts on the outcomes of its dials.

    EndpointGroup ─┬─ balancers: which endpoint the next connection uses, and their loads
                   ├─ waiting_room: clients that no endpoint can take
                   └─ counters (``CounterTable``)

    failed ─┬─ out of ports, descriptors or memory ──▶ a shortage of this node
            ├─ for this client only ──▶ only counted
            └─ otherwise ──▶ ejected ──answered, here or in another worker──▶ back

Rule 1: an update changes all this state, and ends flows to removed endpoints that no longer serve.
Rule 2: ejections and their ends are reported to other workers, unless another worker reported them.
Rule 3: a detour (a fault injection that dials an endpoint elsewhere) may fail although the endpoint
works: such a failure is reported as the detour's, and is forgotten when the detour ends.
Rule 4: log lines per minute are bounded: the last ejection or readmission line reports omissions.
"""

from __future__ import annotations

import _socket
import math
import os
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Protocol

from ..balance import AffinityTables
from ..causes.cause import CauseCode
from ..causes.endpoints import DIAL_CODES, dial_failed
from ..causes.say import say
from ..facts import AbortCounters, AfterWait, EndpointCounters
from ..facts.counters import CounterTable
from ..kernel.neighbours import absent_hop, own_route_failure
from ..kernel.socket_options import packets_lost
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import DialFailure, Failure, PortKey, SocketAddress
from ..model.failures import NO_ANSWER, SHORTAGES, UNREACHABLE
from ..model.port_ranges import DialledRange
from ..model.serving import Serving
from .balancers import Balancers
from .reactor import Reactor
from .waiting_room import Waiting, WaitingRoom

_log = FieldLogger("userspace_proxy.dataplane")

# A client counts as having waited if its dial began this long after its arrival; no client gives up
# sooner.
_WAITED_S = 0.3
# How long clients may still dial a changed range: steering rules change a moment after the workers,
# or seconds later if the kernel rejects them. After that, a dialled port of the old range may be
# the Service port's new port.
_RULES_FOLLOW_S = 10.0
# Cost: nearly all Service ports share this mapping.
_NO_DETOURS: Mapping[SocketAddress, SocketAddress] = MappingProxyType({})
NONE_LEFT: Mapping[SocketAddress, float] = MappingProxyType({})
# The maximum number of ejection lines, and of readmission lines, per Service port and minute.
_EJECTION_LINES = 11


class GroupNews(Protocol):
    """The receiver of one worker's findings about a Service port, for the other workers."""

    def ejected(self, endpoint: SocketAddress, *, is_silent: bool) -> None:
        """Report that a failed dial has ejected an endpoint, or prolonged its ejection."""

    def returned(self, endpoint: SocketAddress) -> None:
        """Report that a dial, or a changed detour, has ended an ejection."""

    def waiting(self) -> None:
        """Report the first waiting client that has found no endpoint."""


class _FailedDials:
    """The state that only a Service port with failed dials needs."""

    __slots__ = ("ejection_lines", "return_lines", "returned_at", "shortage_lines")

    def __init__(self) -> None:
        self.returned_at: dict[SocketAddress, float] = {}
        """When the last ejection of an endpoint ended, in monotonic seconds."""
        self.shortage_lines = LogLimit()
        self.ejection_lines = LogLimit(_EJECTION_LINES)
        self.return_lines = LogLimit(_EJECTION_LINES)


class EndpointGroup(CounterTable):
    """The endpoints of one Service port, for its listeners and their connections.

    A connection keeps its group until it ends, so the counters of a removed endpoint change until
    its last connection has ended, and remain in the sums.

    ``label`` is the key as text, for logs. ``start`` is the initial round-robin position, and the
    index of this process among ``processes``. ``entries`` are the engine's affinity tables.
    """

    __slots__ = (
        "_failed_or_none",
        "_processes",
        "_ranges_left_at",
        "balancers",
        "detours",
        "key",
        "label",
        "left_at",
        "left_ranges",
        "news",
        "on_removed",
        "prefixes",
        "reference",
        "sends_at_once",
        "serving",
        "waiting_room",
    )

    def __init__(
        self,
        key: PortKey,
        serving: Serving | None = None,
        *,
        start: int = 0,
        processes: int = 1,
        entries: AffinityTables | None = None,
    ) -> None:
        super().__init__()
        self.key = key
        # Cost: these texts are built once, here, because every connection uses them.
        self.label = str(key)
        self.reference = str(key.name)
        """The Service port's name without family and side."""
        self.prefixes = key.name.prefixes
        self.serving = serving or Serving()
        """How clients are served, as of the last :meth:`update`."""
        self.left_ranges: tuple[DialledRange, ...] = ()
        """The ranges before their last change; empty once :meth:`lately_left` drops them."""
        self._ranges_left_at = 0.0
        self.detours: Mapping[SocketAddress, SocketAddress] = (
            dict(self.serving.detours) or _NO_DETOURS
        )
        """Addresses at which endpoints are dialled instead of their own; nearly always empty."""
        self.left_at = NONE_LEFT
        """When endpoints last left, in monotonic seconds, in case a later update ends connections
        to them (:meth:`note_left`); empty while the Service ends these anyway."""
        self.balancers = Balancers(
            self.serving,
            self,
            start=start,
            processes=processes,
            entries=entries,
            service=str(key.name.service),
        )
        self.news: GroupNews | None = None
        """Receives this worker's findings."""
        self._failed_or_none: _FailedDials | None = None
        self.sends_at_once = False
        """Whether the last connection had bytes to send at its endpoint's answer (``HeldAcks``)."""
        self.waiting_room: WaitingRoom | None = None
        """The queue of waiting clients; None before the first client has waited."""
        self._processes = processes
        self.on_removed: list[Callable[[frozenset[SocketAddress], float], None]] = []
        """Called with endpoints that some or all clients may no longer use, and the latest start of
        the flows to end, in monotonic seconds; infinity to end all flows to them."""

    def update(self, serving: Serving, now: float = 0.0) -> frozenset[SocketAddress]:
        """Change how clients are served; return endpoints that some clients may no longer use.

        TCP connections to these endpoints continue; flows end, unless the endpoint is terminating
        and still serves. Keeps the round-robin position, and the affinity entries and ejections of
        remaining endpoints. The slow start of new endpoints begins at ``now``.
        """
        old, self.serving = self.serving, serving
        if old.ranges and old.ranges != serving.ranges:
            self.left_ranges, self._ranges_left_at = old.ranges, now
        self.detours = dict(serving.detours) or _NO_DETOURS
        self.balancers.change(serving, now)
        current = frozenset(serving.all_endpoints)
        removed = frozenset(old.all_endpoints) - current
        left = removed | old.gone_in(serving)
        gone = left.union(e for e in old.leaving if not self.balancers.serves_everyone(e))
        self._end_flows(gone.difference(serving.leaving))
        if removed:
            self.fold(current)
        if self._failed_or_none is not None:
            for endpoint in removed:
                self._failed.returned_at.pop(endpoint, None)
        for endpoint, _ in set(old.detours) ^ set(serving.detours):
            # Forget failures of a removed detour, or of the endpoint before a new detour.
            self.counters_of(endpoint).dials.end()
            if self.balancers.current.answered(endpoint) and self.news is not None:
                self.news.returned(endpoint)
        if self.waiting_room is not None:
            self.waiting_room.update(serving.handling.waits, is_uniform=serving.is_uniform)
        return left

    def end_flows_to(self, endpoint: SocketAddress, *, begun_by: float) -> None:
        """End flows begun until ``begun_by``, unless all clients may use the endpoint again."""
        if not self.balancers.serves_everyone(endpoint):
            self._end_flows(frozenset({endpoint}), begun_by)

    def _end_flows(self, endpoints: frozenset[SocketAddress], begun_by: float = math.inf) -> None:
        if endpoints:
            for callback in self.on_removed:
                callback(endpoints, begun_by)

    def lately_left(self, now: float) -> tuple[DialledRange, ...]:
        """Return the ranges before their last change; forget them once no rules can use them."""
        if now - self._ranges_left_at >= _RULES_FOLLOW_S:
            self.left_ranges = ()
        return self.left_ranges

    def waiting(self, now: float) -> Waiting:
        return Waiting() if self.waiting_room is None else self.waiting_room.waiting(now)

    def open_waiting_room(self, reactor: Reactor, *, is_at_limit: bool) -> WaitingRoom | None:
        """Return the waiting room for a client that no endpoint can take; None to refuse it.

        With ``is_at_limit`` the client waits for an endpoint at its limit; the first client that
        waits for any other reason is reported.
        """
        handling = self.serving.handling
        if handling.hold is None and not is_at_limit:
            return None
        if self.waiting_room is None:
            self.waiting_room = WaitingRoom(
                reactor,
                self._processes,
                self,
                handling.waits,
                is_uniform=self.serving.is_uniform,
            )
        if not (is_at_limit or self.waiting_room.lacks_endpoints or self.news is None):
            self.news.waiting()
        return self.waiting_room

    def abort_counters_of(
        self, counters: EndpointCounters, accepted_at: float, dialled_at: float | None
    ) -> AbortCounters:
        """Return the counters to update if a client leaves before an answer.

        Returns the endpoint's ``counters``, unless this client waited for its dial while the
        endpoint answered others: then the endpoint isn't to blame.
        """
        has_waited = dialled_at is not None and dialled_at - accepted_at >= _WAITED_S
        is_answering = counters.ends.succeeded_at >= accepted_at
        return AfterWait(self) if has_waited and is_answering else counters

    def note_saved(self, counters: EndpointCounters, failed: Collection[CauseCode]) -> None:
        """Count a connection answered after failed dials as saved; also as late if one was slow."""
        self.counters.saved += 1
        counters.late += any(code.traits.is_slow for code in failed)

    def former_endpoints(self) -> set[SocketAddress]:
        """Return the removed endpoints that still have connections."""
        current = self.serving.all_endpoints
        return {e for e, counters in self.each_counters() if counters.active and e not in current}

    def note_left(self, left_at: Mapping[SocketAddress, float], dialled_since: float) -> None:
        """Record when endpoints left, for endpoints that may still have connections.

        A dial to an endpoint that left after ``dialled_since`` may be in progress, without
        counters.
        """
        current = frozenset(self.serving.all_endpoints)
        self.left_at = {
            endpoint: at
            for endpoint, at in left_at.items()
            if endpoint in current
            or self.find_counters(endpoint) is not None
            or at >= dialled_since
        } or NONE_LEFT

    def count_lost(self, sock: _socket.socket, before: int) -> int:
        """Count packets that the kernel dropped at a listening socket; return the kernel's counter.

        If only some clients are admitted, the packets count as denied, because nearly all dropped
        packets come from other clients. ``before`` is the kernel's counter as of the last call.
        """
        lost = packets_lost(sock)
        new = (lost - before) & 0xFFFFFFFF
        # Cost: even adding 0 would mark the counters as changed, and cause a report.
        if new and self.serving.admits is None:
            self.counters.dropped_datagrams += new
        elif new:
            self.counters.denied += new
        return lost

    @property
    def _failed(self) -> _FailedDials:
        if self._failed_or_none is None:
            self._failed_or_none = _FailedDials()
        return self._failed_or_none

    def failed(
        self,
        endpoint: SocketAddress,
        failed: DialFailure,
        now: float,
        *,
        client: str = "",
        is_client_specific: bool = False,
        may_be_client_specific: bool = False,
    ) -> CauseCode:
        """Count a failed dial, eject the endpoint if it was the cause, and return why it failed.

        ``client`` is the dial's source address, empty for this node's own. The endpoint answers
        other clients if ``is_client_specific``, and may answer them if ``may_be_client_specific``.
        """
        counters = self.counters_of(endpoint)
        is_silent = failed.failure is Failure.SILENT
        if failed.failure in NO_ANSWER and absent_hop(endpoint.ip):
            failed = failed._replace(failure=Failure.NO_HOST)
        failed = own_route_failure(failed, endpoint.ip)
        failure = failed.failure
        code = DIAL_CODES[failure]
        if endpoint in self.detours:
            code = CauseCode.FAULT_ON_PURPOSE
        counters.count_failure(code)
        if failure in SHORTAGES:
            self._note_shortage(endpoint, failed, now, is_of_client=bool(client))
            return code
        if failure is Failure.RESET:
            # Count a failed end, too: only an endpoint that accepted the connection resets it,
            # whatever probes have shown.
            counters.ends.failed(now, failure)
            if client:
                counters.exclusions.ended(client, now, failure, counters.ends.succeeded_at)
        if is_client_specific:
            return code
        dials = counters.dials
        # Routers limit the rate of ICMP errors, so silence after such an error counts as the same
        # failure.
        is_reported = failure is Failure.SILENT and dials.part.failure in UNREACHABLE
        dials.dial_failed(now, dials.dial_failure if dials.is_on and is_reported else failed)
        if may_be_client_specific:
            return code
        if self.balancers.current.failed(endpoint, now, is_silent=is_silent):
            lines = self._failed.ejection_lines
            if lines.take(now):
                self._log_ejection(endpoint, failed, is_last=not lines.left)
            if self.news is not None:
                self.news.ejected(endpoint, is_silent=is_silent)
        return code

    def answered(self, endpoint: SocketAddress, now: float) -> EndpointCounters:
        """Record a successful dial, which ends an ejection; return the endpoint's counters."""
        counters = self.counters_of(endpoint)
        counters.dials.succeeded_at = now
        if self.balancers.current.answered(endpoint):
            self._note_return(endpoint, now)
            lines = self._failed.return_lines
            if lines.take(now):
                self._log_return(endpoint, is_last=not lines.left)
            if self.news is not None:
                self.news.returned(endpoint)
        return counters

    def answered_elsewhere(self, endpoint: SocketAddress, now: float) -> None:
        """Record an answer to another worker, which ends the endpoint's ejection."""
        counters = self.find_counters(endpoint)
        if counters is not None:
            counters.dials.succeeded_at = now
        if self.balancers.current.answered(endpoint):
            self._note_return(endpoint, now)

    def has_returned_since(self, endpoint: SocketAddress, moment: float) -> bool:
        """Return whether an ejection ended after ``moment``: older silence is outdated."""
        failed = self._failed_or_none
        return failed is not None and failed.returned_at.get(endpoint, moment) > moment

    def has_answered_since(self, endpoint: SocketAddress, moment: float) -> bool:
        """Return whether a dial succeeded after ``moment``: older silence ejects nothing."""
        counters = self.find_counters(endpoint)
        return counters is not None and counters.dials.succeeded_at > moment

    def left_client_address(self, endpoint: SocketAddress, client: str, now: float) -> None:
        """Count and log that a dial uses this node's address because no client port was free."""
        self._count_client_ports(now)
        fields = {
            "service": self.label,
            "endpoint": str(endpoint),
            "client": client,
            "cause": "the client's ports 61000-65535 towards the endpoint are in use",
            "remedy": "set net.ipv4.tcp_timestamps=1 on this node and in the endpoint",
        }
        if self._failed.shortage_lines.take(now):
            _log.warning(
                "%(service)s: endpoint %(endpoint)s sees this node's address instead of "
                "%(client)s: %(cause)s",
                extra=fields,
            )

    def _note_shortage(
        self, endpoint: SocketAddress, failed: DialFailure, now: float, *, is_of_client: bool
    ) -> None:
        """Count and log a dial that failed because of a shortage of this node."""
        self.counters.shortages += 1
        is_port = failed.failure in (Failure.OUT_OF_PORTS, Failure.OUT_OF_ALL_PORTS)
        if is_port and is_of_client:
            self._count_client_ports(now)
        elif is_port:
            self.counters.out_of_ports += 1
            self.out_of_ports_at = now
        if self._failed.shortage_lines.take(now):
            lack = "local ports" if is_port else "descriptors or memory"
            fields = {**self._fields(endpoint, failed), "resource": lack}
            _log.warning("%(service)s: dial failed, out of %(resource)s: %(cause)s", extra=fields)

    def _count_client_ports(self, now: float) -> None:
        self.counters.out_of_client_ports += 1
        self.out_of_client_ports_at = now

    def _note_return(self, endpoint: SocketAddress, now: float) -> None:
        self._failed.returned_at[endpoint] = now
        self.balancers.restart(endpoint, now)
        if self.waiting_room is not None:
            self.waiting_room.retry()

    def _fields(self, endpoint: SocketAddress, failed: DialFailure) -> dict[str, str]:
        cause = dial_failed(endpoint, failed.failure, os.strerror(failed.number))
        on_purpose = " (a fault on purpose)" if endpoint in self.detours else ""
        words = f"{say(cause)}{on_purpose}"
        return {"service": self.label, "endpoint": str(endpoint), "cause": words}

    def _log_ejection(self, endpoint: SocketAddress, failed: DialFailure, *, is_last: bool) -> None:
        if not is_last:
            fields = self._fields(endpoint, failed)
            _log.warning("%(service)s: endpoint ejected: %(cause)s", extra=fields)
            return
        _log.warning(
            "%(service)s: more endpoints ejected, further lines omitted for up to a minute",
            extra={"service": self.label},
        )

    def _log_return(self, endpoint: SocketAddress, *, is_last: bool) -> None:
        if not is_last:
            fields = {"service": self.label, "endpoint": str(endpoint)}
            _log.info("%(service)s: endpoint readmitted: %(endpoint)s", extra=fields)
            return
        _log.info(
            "%(service)s: more endpoints readmitted, further lines omitted for up to a minute",
            extra={"service": self.label},
        )
