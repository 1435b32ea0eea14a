"""Declares each figure once, in a table, for all code that counts, sends or shows it.

    workers ─── names ───▶ counters, reports          (``counted_names``)
    metrics ─── Figure ──▶ names, help, details       (``figures_of``)
    JSON, page, text, explain, docs/api.md ── fields

Rule 1: each field is a figure; docs/api.md contains its docstring, and ``/metrics`` its ``help``.
Rule 2: the JSON and ``/metrics`` have the same order as the table.
Rule 3: counters only grow until the process exits, except that a late answer takes back a failure
in ``client_aborts``. ``unanswered_flows`` isn't in ``/metrics``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal, get_origin, get_type_hints

import msgspec

from ..causes.cause import CauseCode

Detail = Literal["node", "service", "endpoint"]
"""The detail of ``/metrics``: only the sums of the node, or also Service ports, or also
endpoints."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The presentation of a figure in ``/metrics``."""

    kind: Literal["counter", "gauge", "histogram"]
    metric: str
    """The metric's name without its prefix and ``_total``."""
    unit: str
    help: str
    is_rare: bool = False
    """Whether Service ports and endpoints have no series while the figure is 0."""
    detail: Detail = "service"
    """The lowest detail with a series per Service port; ``node`` means that only the sum is
    shown."""


def counter(
    metric: str, unit: str, help_: str, *, is_rare: bool = False, detail: Detail = "service"
) -> msgspec.Meta:
    """Annotate a field as a figure that only grows; the arguments are fields of Figure."""
    return _figure(Figure("counter", metric, unit, help_, is_rare, detail))


def gauge(metric: str, unit: str, help_: str, *, is_rare: bool = False) -> msgspec.Meta:
    """Annotate a field as a figure that rises and falls."""
    return _figure(Figure("gauge", metric, unit, help_, is_rare))


def histogram(metric: str, unit: str, help_: str) -> msgspec.Meta:
    """Annotate a field as a :class:`Times`; it has many series per Service port."""
    return _figure(Figure("histogram", metric, unit, help_, detail="endpoint"))


def _figure(figure: Figure) -> msgspec.Meta:
    return msgspec.Meta(extra={"figure": figure})


class Times(msgspec.Struct, frozen=True, gc=False):
    """A histogram of how long clients have waited since the process started."""

    bounds: tuple[float, ...] = ()
    """The upper bounds of the buckets in seconds, ascending."""
    counts: tuple[int, ...] = ()
    """The number of waits up to each bound that were longer than the previous bound; the last
    number counts waits beyond all bounds."""
    seconds: float = 0.0
    """The sum of all waits, in seconds."""


NO_TIMES = Times()


class Traffic(msgspec.Struct, kw_only=True):
    """Traffic of one endpoint, summed for a Service port and the node."""

    active: Annotated[
        int, gauge("connections_active", "connections", "Open connections (UDP: live flows)")
    ] = 0
    stalled: Annotated[
        int,
        gauge(
            "connections_stalled",
            "connections",
            "Open connections on which the endpoint acknowledges nothing any more (UDP: live flows "
            "that it has answered for a while, and doesn't any more)",
            is_rare=True,
        ),
    ] = 0
    connections: Annotated[
        int,
        counter("connections", "connections", "Connections (UDP: flows) since the start"),
    ] = 0
    failures: int = 0
    """Dials that failed; for a Service port, including dials to former endpoints."""
    preserved: Annotated[
        int,
        counter(
            "connections_preserved",
            "connections",
            "Connections (UDP: flows) in which the endpoint saw the client's own address",
            is_rare=True,
        ),
    ] = 0
    received_bytes: Annotated[int, counter("received_bytes", "bytes", "Bytes from clients")] = 0
    sent_bytes: Annotated[int, counter("sent_bytes", "bytes", "Bytes to clients")] = 0
    resets: Annotated[
        int,
        counter(
            "connections_reset",
            "connections",
            "Connections that the endpoint reset",
            is_rare=True,
        ),
    ] = 0
    """Connections that the endpoint reset, before or after it had sent a byte."""
    empty: Annotated[
        int,
        counter(
            "connections_empty",
            "connections",
            "Connections that the endpoint closed without having sent a byte, although the client "
            "had, or within a second",
            is_rare=True,
        ),
    ] = 0

    client_aborts: Annotated[
        int,
        counter(
            "client_aborts",
            "connections",
            "Connections whose clients left before the first byte, which they had waited for",
            is_rare=True,
        ),
    ] = 0
    unanswered_flows: int = 0
    """Flows that got no answer for two seconds, even if a later one arrived."""


class WaitCounts(msgspec.Struct, kw_only=True):
    """Counters for connections and flows that wait until an endpoint can take them."""

    total: Annotated[
        int,
        counter(
            "connections_waited",
            "connections",
            "Connections that began to wait for an endpoint (UDP: flows)",
            is_rare=True,
        ),
    ] = 0
    timeouts: Annotated[
        int,
        counter(
            "wait_timeouts",
            "connections",
            "Of these, connections that ended because their time was up",
            is_rare=True,
        ),
    ] = 0
    overflows: Annotated[
        int,
        counter(
            "wait_overflows",
            "connections",
            "Of these, connections that ended to make room for later ones",
            is_rare=True,
        ),
    ] = 0
    client_aborts: Annotated[
        int,
        counter(
            "wait_client_aborts",
            "connections",
            "Of these, connections whose clients left",
            is_rare=True,
        ),
    ] = 0


class WaitingNow(WaitCounts):
    """The counters, preceded in the JSON by the clients that wait now."""

    waiting: Annotated[
        int,
        gauge(
            "connections_waiting",
            "connections",
            "Connections that wait for an endpoint now (UDP: flows)",
            is_rare=True,
        ),
    ] = 0
    longest_s: Annotated[
        float,
        gauge(
            "longest_wait_seconds",
            "seconds",
            "How long the first of the connections that wait has waited",
            is_rare=True,
        ),
    ] = 0.0
    """The longest time that a waiting connection has waited, in seconds; 0 if none waits."""


class Waits(WaitingNow, kw_only=True, gc=False):
    """The clients that wait, or have waited, until an endpoint can take them."""

    problem: str = ""
    """Why the workload that clients wait for wasn't scaled; empty if no scaling failed."""


class TrafficByCause(Traffic, kw_only=True):
    """Traffic of one endpoint, with failed dials by cause."""

    failures_by_cause: Mapping[CauseCode, int] = {}
    """Failed dials by cause, without causes at 0."""

    @property
    def failed(self) -> int:
        """Failed dials, and clients that got no answer or that the endpoint disconnected."""
        return self.failures + _failed_at_endpoints(self)


class PortFigures(TrafficByCause, kw_only=True):
    """Traffic of one Service port, summed for the node.

    Workers count this class's integers per Service port, and its bases' integers per endpoint.
    """

    saved: Annotated[
        int,
        counter(
            "connections_saved",
            "connections",
            "Connections (UDP: flows) whose first dial failed and that another endpoint answered",
        ),
    ] = 0
    """Connections and UDP flows whose first dial failed and that another endpoint answered, so that
    their clients noticed nothing."""
    connect_times: Annotated[
        Times,
        histogram(
            "connect_duration_seconds",
            "seconds",
            "How long clients waited until an endpoint answered, failed dials included",
        ),
    ] = NO_TIMES
    """How long TCP clients waited until an endpoint answered, including failed dials."""
    first_byte_times: Annotated[
        Times,
        histogram(
            "first_byte_duration_seconds",
            "seconds",
            "How long clients waited for an endpoint's first byte, from its answer or their own "
            "first byte, whichever came later",
        ),
    ] = NO_TIMES
    """How long TCP clients waited for the endpoint's first byte, since its answer or their own
    first byte, whichever came later."""
    refused: Annotated[
        int,
        counter(
            "connections_refused",
            "connections",
            "Connections that no endpoint answered, and datagrams without an endpoint",
        ),
    ] = 0
    denied: Annotated[
        int,
        counter(
            "packets_denied",
            "packets",
            "Packets dropped because their clients aren't admitted (source ranges, traffic policy "
            "Local); a client that isn't answered sends its SYN several times",
            detail="node",
        ),
    ] = 0
    dropped_datagrams: Annotated[
        int,
        counter(
            "datagrams_dropped",
            "datagrams",
            "UDP datagrams lost at this proxy's sockets, mostly because a buffer was full",
            is_rare=True,
        ),
    ] = 0
    """Datagrams lost at this proxy's sockets, mostly because a buffer was full. If only some
    clients are admitted, ``denied`` counts them instead."""
    evicted: Annotated[
        int,
        counter(
            "connections_evicted",
            "connections",
            "Connections reset at the limit of descriptors or memory (UDP: flows ended in a full "
            "table)",
            is_rare=True,
        ),
    ] = 0
    """Connections and flows that were ended early to make room for others, or to free memory."""
    evicted_for_memory: Annotated[
        int,
        counter(
            "connections_evicted_for_memory",
            "connections",
            "Of these, connections reset because memory was low",
            is_rare=True,
        ),
    ] = 0
    ended_by_removal: Annotated[
        int,
        counter(
            "connections_ended_by_removal",
            "connections",
            "Connections reset because their endpoint had left (on-endpoint-removal)",
            is_rare=True,
        ),
    ] = 0
    ended_idle: Annotated[
        int,
        counter(
            "connections_ended_idle",
            "connections",
            "Connections reset because no byte had passed for too long "
            "(--conntrack-tcp-timeout-established)",
            is_rare=True,
        ),
    ] = 0
    bad_headers: Annotated[
        int,
        counter(
            "connections_without_proxy_header",
            "connections",
            "Connections reset because no valid PROXY header came (--accept-proxy-protocol)",
            is_rare=True,
        ),
    ] = 0
    shortages: Annotated[
        int,
        counter(
            "local_shortages",
            "dials",
            "Dials that failed because this node had no source port, descriptor or memory left",
            is_rare=True,
        ),
    ] = 0
    waits: Waits = msgspec.field(default_factory=Waits)
    """Clients that wait, or have waited, for an endpoint: see the annotation ``hold``."""

    @property
    def failed(self) -> int:
        """Clients that got no answer, or that an endpoint disconnected."""
        return failed_clients(self, self)


def failed_clients(port: PortFigures, endpoints: Traffic) -> int:
    """Return the number of clients that got no answer, or that an endpoint disconnected.

    It includes clients that no endpoint answered, that an endpoint disconnected, or that left while
    they waited for an endpoint or a first byte, and flows that got no answer.

    Args:
        port: The figures of the Service port itself.
        endpoints: The sums over its endpoints.
    """
    return port.refused + port.waits.client_aborts + _failed_at_endpoints(endpoints)


def _failed_at_endpoints(endpoints: Traffic) -> int:
    ended = endpoints.resets + endpoints.empty
    return ended + endpoints.client_aborts + endpoints.unanswered_flows


@cache
def counted_names(table: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the integer fields that a table adds to its base classes, in order."""
    hints = get_type_hints(table)
    inherited = {
        name for base in table.__bases__ for name in getattr(base, "__struct_fields__", ())
    }
    names = (name for name in table.__struct_fields__ if hints[name] is int)
    return tuple(name for name in names if name not in inherited)


@cache
def figures_of(table: type[msgspec.Struct]) -> Mapping[str, Figure]:
    """Return the figures of a table by field name, such as ``waits.total``."""
    found: dict[str, Figure] = {}
    hints = get_type_hints(table, include_extras=True)
    for name in table.__struct_fields__:
        hint = hints[name]
        if get_origin(hint) is Annotated:
            found[name] = hint.__metadata__[0].extra["figure"]
        elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            found |= {f"{name}.{inner}": one for inner, one in figures_of(hint).items()}
    return found


GAUGES = tuple(name for name, figure in figures_of(Traffic).items() if figure.kind == "gauge")
"""The figures of endpoints that may decrease; when a worker exits, its part is subtracted."""
