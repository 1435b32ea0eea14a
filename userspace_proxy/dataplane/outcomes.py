"""Counts, logs and acts on the outcomes of dials to the endpoints of one Service port.

    failed ─┬─ out of ports, descriptors or memory ──▶ a shortage of this node
            ├─ for this client only ──▶ only counted
            └─ otherwise ──▶ ejected ──answered, here or in another worker──▶ back

Rule 1: ejections and their ends are reported to other workers, unless another worker reported them.
Rule 2: a detour (a fault injection that dials an endpoint elsewhere) may fail although the endpoint
works: such a failure is reported as the detour's, and is forgotten when the detour ends.
Rule 3: log lines per minute are bounded: the last one reports that further lines are omitted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from typing import Protocol

from ..causes.cause import CauseCode
from ..causes.endpoints import DIAL_CODES, dial_failed
from ..causes.say import say
from ..facts import CounterTable, EndpointCounters
from ..kernel.neighbours import absent_hop, own_route_failure
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import DialFailure, Failure, SocketAddress
from ..model.failures import NO_ANSWER, SHORTAGES, UNREACHABLE
from ..model.serving import Serving
from .balancers import Balancers

_log = FieldLogger("userspace_proxy.dataplane")

# The maximum number of log lines per Service port and minute.
_EJECTION_LINES = 11


class GroupNews(Protocol):
    """The receiver of one worker's findings about a Service port, for the other workers."""

    def ejected(self, endpoint: SocketAddress, *, is_silent: bool) -> None:
        """Report that a failed dial has ejected an endpoint, or prolonged its ejection."""

    def returned(self, endpoint: SocketAddress) -> None:
        """Report that a dial has ended an ejection."""

    def waiting(self) -> None:
        """Report the first waiting client that has found no endpoint."""


class _FailedDials:
    """The state that only a Service port with failed dials needs."""

    __slots__ = ("ejection_lines", "return_lines", "returned_at", "shortage_lines")

    def __init__(self) -> None:
        self.returned_at: dict[SocketAddress, float] = {}
        """When the last ejection of an endpoint ended."""
        self.shortage_lines = LogLimit()
        self.ejection_lines = LogLimit(_EJECTION_LINES)
        self.return_lines = LogLimit(_EJECTION_LINES)


class Outcomes:
    """The outcomes of one Service port's dials.

    Args:
        label: The label of the Service port, for the log.
        table: The counters of the Service port.
        balancers: The balancers, which eject endpoints.
        on_back: Called when an ejection has ended, here or in another worker.
    """

    __slots__ = (
        "_balancers",
        "_failed_or_none",
        "_label",
        "_on_back",
        "_table",
        "detours",
        "news",
    )

    def __init__(
        self,
        label: str,
        table: CounterTable,
        balancers: Balancers,
        on_back: Callable[[], None],
    ) -> None:
        self._label = label
        self._table = table
        self._balancers = balancers
        self._on_back = on_back
        self.news: GroupNews | None = None
        """Receives this worker's findings."""
        self.detours: Container[SocketAddress] = ()
        """Endpoints with a detour."""
        self._failed_or_none: _FailedDials | None = None

    @property
    def _failed(self) -> _FailedDials:
        if self._failed_or_none is None:
            self._failed_or_none = _FailedDials()
        return self._failed_or_none

    def change(self, old: Serving, new: Serving) -> None:
        """Forget endpoints that have left, and failures of endpoints whose detour has changed."""
        if self._failed_or_none is not None:
            for endpoint in frozenset(old.all_endpoints).difference(new.all_endpoints):
                self._failed.returned_at.pop(endpoint, None)
        for endpoint, _ in set(old.detours) ^ set(new.detours):
            self._table.counters_of(endpoint).dials.end()
            if self._balancers.current.answered(endpoint) and self.news is not None:
                self.news.returned(endpoint)

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

        ``client`` is the dial's source address, empty for this node's own;
        ``is_client_specific`` means that the endpoint answers other clients,
        ``may_be_client_specific`` that it may answer them.
        """
        counters = self._table.counters_of(endpoint)
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
            # Count an end, not a failed dial: only an endpoint that accepted the connection resets
            # it, whatever probes have shown.
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
        if self._balancers.current.failed(endpoint, now, is_silent=is_silent):
            lines = self._failed.ejection_lines
            if lines.take(now):
                self._log_ejection(endpoint, failed, is_last=not lines.left)
            if self.news is not None:
                self.news.ejected(endpoint, is_silent=is_silent)
        return code

    def answered(self, endpoint: SocketAddress, now: float) -> EndpointCounters:
        """Record a successful dial, which ends an ejection. Returns the endpoint's counters."""
        counters = self._table.counters_of(endpoint)
        counters.dials.succeeded_at = now
        if self._balancers.current.answered(endpoint):
            self._note_return(endpoint, now)
            lines = self._failed.return_lines
            if lines.take(now):
                self._log_return(endpoint, is_last=not lines.left)
            if self.news is not None:
                self.news.returned(endpoint)
        return counters

    def answered_elsewhere(self, endpoint: SocketAddress, now: float) -> None:
        """End an ejection because the endpoint has answered another worker."""
        counters = self._table.find_counters(endpoint)
        if counters is not None:
            counters.dials.succeeded_at = now
        if self._balancers.current.answered(endpoint):
            self._note_return(endpoint, now)

    def has_returned_since(self, endpoint: SocketAddress, moment: float) -> bool:
        """Return whether an ejection ended after ``moment``: older silence is outdated."""
        failed = self._failed_or_none
        return failed is not None and failed.returned_at.get(endpoint, moment) > moment

    def has_answered_since(self, endpoint: SocketAddress, moment: float) -> bool:
        """Return whether a dial succeeded after ``moment``: older silence ejects nothing."""
        counters = self._table.find_counters(endpoint)
        return counters is not None and counters.dials.succeeded_at > moment

    def left_client_address(self, endpoint: SocketAddress, client: str, now: float) -> None:
        """Count and log that a dial uses this node's address because no client port was free."""
        self._count_client_ports(now)
        fields = {
            "service": self._label,
            "endpoint": str(endpoint),
            "client": client,
            "cause": "the client's ports 61000-65535 towards the endpoint are in use",
            "hint": "set net.ipv4.tcp_timestamps=1 on this node and in the endpoint",
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
        self._table.counters.shortages += 1
        if failed.failure is Failure.OUT_OF_PORTS and is_of_client:
            self._count_client_ports(now)
        elif failed.failure is Failure.OUT_OF_PORTS:
            self._table.counters.out_of_ports += 1
            self._table.out_of_ports_at = now
        if self._failed.shortage_lines.take(now):
            _log.warning(
                "%(service)s: out of local ports, descriptors or memory: %(cause)s",
                extra=self._fields(endpoint, failed),
            )

    def _count_client_ports(self, now: float) -> None:
        self._table.counters.out_of_client_ports += 1
        self._table.out_of_client_ports_at = now

    def _note_return(self, endpoint: SocketAddress, now: float) -> None:
        self._failed.returned_at[endpoint] = now
        self._balancers.restart(endpoint, now)
        self._on_back()

    def _fields(self, endpoint: SocketAddress, failed: DialFailure) -> dict[str, str]:
        cause = dial_failed(endpoint, failed.failure, os.strerror(failed.number))
        on_purpose = " (a fault on purpose)" if endpoint in self.detours else ""
        words = f"{say(cause)}{on_purpose}"
        return {"service": self._label, "endpoint": str(endpoint), "cause": words}

    def _log_ejection(self, endpoint: SocketAddress, failed: DialFailure, *, is_last: bool) -> None:
        if not is_last:
            fields = self._fields(endpoint, failed)
            _log.warning("%(service)s: endpoint ejected: %(cause)s", extra=fields)
            return
        _log.warning(
            "%(service)s: more endpoints ejected, further lines omitted for up to a minute",
            extra={"service": self._label},
        )

    def _log_return(self, endpoint: SocketAddress, *, is_last: bool) -> None:
        if not is_last:
            fields = {"service": self._label, "endpoint": str(endpoint)}
            _log.info("%(service)s: endpoint readmitted: %(endpoint)s", extra=fields)
            return
        _log.info(
            "%(service)s: more endpoints readmitted, further lines omitted for up to a minute",
            extra={"service": self._label},
        )
