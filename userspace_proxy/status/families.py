"""Maps a status view to the metrics of Service ports and endpoints, in the detail asked for.

    detail      series                                                   how many
    node        node_…, the sums over all; service_port_problem          some hundred
    service     and Service ports that have had a client                 six for each
                service_ignored                                          one for each
    endpoint    and endpoints that have been dialled; endpoints of all;  six for each endpoint,
                how long clients of each Service port waited             28 for each Service port

Rule 1: a series never appears twice, whatever the view contains, because Prometheus would discard
the whole scrape.
Rule 2: labels are names from the plan, never of clients, so the size of the cluster bounds their
number.
Rule 3: the sums of the node are there from the start, at 0, so that Prometheus sees the first
increment of each; alerts use them. The series of a Service port appear with its first client, and
those that are rarely needed when they aren't 0: most Services of a cluster never have a client on
this node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

from ..model import CauseCode
from ..plan import IgnoredService
from .counted import Times
from .demand import demand_family
from .exposition import Buckets, Family, counter, gauge, histogram, labels_text
from .node_families import PREFIX, node_families
from .path_families import path_families
from .port_state import judge
from .view import EndpointView, ServicePortView, StatusView, TotalsView, Traffic

Detail = Literal["node", "service", "endpoint"]

PORT_LABELS = ("namespace", "service", "port", "protocol", "family", "side")
"""``side`` is absent except for frontends with a policy of their own; sums over a Service port are
right without it."""
ENDPOINT_STATES = ("ready", "not_ready", "terminating", "ejected", "refused", "not_used")
"""``not_used``: traffic policy or hints keep this node's clients from it."""

_View = TypeVar("_View", contravariant=True)


class _Series(NamedTuple, Generic[_View]):
    """One metric with one value per row."""

    make: Callable[[str, str, Iterable[tuple[str, float]]], Family]
    name: str
    help: str
    value: Callable[[_View], float]
    is_rare: bool = False
    """It is left out where it is 0."""


_NO_TRAFFIC = Traffic()
_CONNECTIONS = "Connections (UDP: flows)"

_TRAFFIC: tuple[_Series[Traffic], ...] = (
    _Series(counter, "connections", f"{_CONNECTIONS} since the start", lambda t: t.connections),
    _Series(
        counter,
        "connections_preserved",
        f"{_CONNECTIONS} in which the endpoint saw the client's own address",
        lambda t: t.preserved,
        is_rare=True,
    ),
    _Series(gauge, "connections_active", "Open connections (UDP: live flows)", lambda t: t.active),
    _Series(
        counter,
        "connections_reset",
        "Connections that the endpoint reset before it had sent a byte",
        lambda t: t.resets,
        is_rare=True,
    ),
    _Series(
        counter,
        "connections_empty",
        "Connections that the endpoint closed without having sent a byte, although the client had",
        lambda t: t.empty,
        is_rare=True,
    ),
    _Series(counter, "received_bytes", "Bytes from clients", lambda t: t.received_bytes),
    _Series(counter, "sent_bytes", "Bytes to clients", lambda t: t.sent_bytes),
)
"""For the node with ``node_``, for a Service port, for an endpoint with ``endpoint_``."""

_COUNTED: tuple[_Series[ServicePortView | TotalsView], ...] = (
    _Series(
        counter,
        "connections_saved",
        f"{_CONNECTIONS} whose first dial failed and that another endpoint answered",
        lambda port: port.saved,
    ),
    _Series(
        counter,
        "connections_refused",
        "Connections that no endpoint answered, and datagrams without an endpoint",
        lambda port: port.refused,
    ),
    _Series(
        counter,
        "datagrams_dropped",
        "UDP datagrams lost at this proxy's sockets, mostly because a buffer was full",
        lambda port: port.dropped_datagrams,
        is_rare=True,
    ),
    _Series(
        counter,
        "connections_evicted",
        "Connections reset at the limit of descriptors or memory (UDP: flows ended in a full "
        "table)",
        lambda port: port.evicted,
        is_rare=True,
    ),
    _Series(
        counter,
        "connections_evicted_for_memory",
        "Of these, connections reset because memory was short",
        lambda port: port.evicted_for_memory,
        is_rare=True,
    ),
    _Series(
        counter,
        "connections_ended_by_removal",
        "Connections reset because their endpoint had left (on-endpoint-removal)",
        lambda port: port.ended_by_removal,
        is_rare=True,
    ),
    _Series(
        counter,
        "connections_without_proxy_header",
        "Connections reset because no PROXY header came (--accept-proxy-protocol)",
        lambda port: port.bad_headers,
        is_rare=True,
    ),
    _Series(
        counter,
        "local_shortages",
        "Dials that failed because this node had no source port, descriptor or memory left",
        lambda port: port.shortages,
        is_rare=True,
    ),
    _Series(
        gauge,
        "connections_waiting",
        "Connections that wait for an endpoint now (UDP: flows)",
        lambda port: port.waits.waiting,
        is_rare=True,
    ),
    _Series(
        gauge,
        "longest_wait_seconds",
        "How long the first of the connections that wait has waited",
        lambda port: port.waits.longest_s,
        is_rare=True,
    ),
    _Series(
        counter,
        "connections_waited",
        "Connections that began to wait for an endpoint (UDP: flows)",
        lambda port: port.waits.total,
        is_rare=True,
    ),
    _Series(
        counter,
        "wait_timeouts",
        "Of these, connections that ended because their time was up",
        lambda port: port.waits.timeouts,
        is_rare=True,
    ),
    _Series(
        counter,
        "wait_overflows",
        "Of these, connections that ended to make room for later ones",
        lambda port: port.waits.overflows,
        is_rare=True,
    ),
    _Series(
        counter,
        "waits_left",
        "Of these, connections whose clients left",
        lambda port: port.waits.left,
        is_rare=True,
    ),
)
"""For the node with the prefix ``node_``, and for a Service port."""

_DENIED: _Series[TotalsView] = _Series(
    counter,
    "packets_denied",
    "Packets dropped because their clients aren't admitted (source ranges, traffic policy Local); "
    "a client that isn't answered sends its SYN several times",
    lambda totals: totals.denied,
)
_EJECTED: _Series[EndpointView] = _Series(
    gauge,
    "ejected",
    "1 while this endpoint is left out because dials to it failed",
    lambda e: e.ejected_for_s is not None,
)

_FAILURES = "Dials that failed, by cause"
_DIAL_CAUSES = (
    CauseCode.ENDPOINT_REFUSES,
    CauseCode.ENDPOINT_SILENT,
    CauseCode.ENDPOINT_UNREACHABLE,
    CauseCode.ENDPOINT_FAILS,
)


def families_of(view: StatusView, detail: Detail) -> Iterator[Family]:
    """Return every metric of a view, one family at a time."""
    yield from node_families(view)
    yield from _families("node_", _TRAFFIC, {"": view.totals.traffic})
    yield from _families("node_", (*_COUNTED, _DENIED), {"": view.totals})
    known = view.totals.failures_by_cause
    failures = {"": {cause: known.get(cause, 0) for cause in _DIAL_CAUSES}}
    yield _by_cause("node_dial_failures", _FAILURES, failures)
    yield from _waits("node_", {"": view.totals})
    yield _problems(view)
    if detail == "node":
        return
    yield _ignored(view.ignored)
    yield demand_family(view)
    yield from path_families(_by_labels(p for p in view.ports if not p.path.is_default))
    used = _by_labels(filter(_has_had_clients, view.ports))
    yield from _port_families(used)
    if detail == "endpoint":
        yield _endpoint_states(_by_labels(view.ports))
        yield from _endpoint_families(used)
        yield from _waits("", used)


def state_label(endpoint: EndpointView) -> str:
    """Return the one of :data:`ENDPOINT_STATES` in which an endpoint is counted.

    The verdict's words contain the cause of a refusal; a label must be from a short list.
    """
    verdict = endpoint.verdict
    if verdict.is_usable and endpoint.ejected_for_s is not None:
        return "ejected"
    if endpoint.is_left_out:
        return "not_used"
    if verdict.code is CauseCode.ENDPOINT_NOT_ALLOWED:
        return "refused"
    if verdict.reason.startswith("terminating"):
        return "terminating"
    return "ready" if verdict.code is None else "not_ready"


def _by_labels(ports: Iterable[ServicePortView]) -> dict[str, ServicePortView]:
    """Return Service ports by their labels, as text; of equals the first."""
    by_labels: dict[str, ServicePortView] = {}
    for port in ports:
        by_labels.setdefault(labels_text(PORT_LABELS, _port_labels(port)), port)
    return by_labels


def _has_had_clients(port: ServicePortView) -> bool:
    return bool(
        port.traffic.connections
        or port.traffic.failures
        or port.denied
        or any(series.value(port) for series in _COUNTED)
    )


def _port_families(ports: Mapping[str, ServicePortView]) -> Iterator[Family]:
    yield from _families("", _TRAFFIC, {labels: port.traffic for labels, port in ports.items()})
    yield from _families("", _COUNTED, ports)
    failures = {labels: port.failures_by_cause for labels, port in ports.items()}
    yield _by_cause("dial_failures", _FAILURES, failures)
    denied = {at: {c.code: c.count for c in port.turned_away} for at, port in ports.items()}
    yield _by_cause("packets_denied", _DENIED.help, denied)
    yield gauge(
        f"{PREFIX}usable_endpoints",
        "Endpoints that may serve from this node now; clients are refused or dropped at 0",
        [(at, sum(e.verdict.is_usable for e in port.endpoints)) for at, port in ports.items()],
    )


def _endpoint_families(ports: Mapping[str, ServicePortView]) -> Iterator[Family]:
    endpoints: dict[str, EndpointView] = {}
    for labels, port in ports.items():
        for endpoint in port.endpoints:
            if endpoint.traffic != _NO_TRAFFIC or endpoint.ejected_for_s is not None:
                text = f'{labels[:-1]},endpoint="{endpoint.verdict.address}"}}'
                endpoints.setdefault(text, endpoint)
    traffic = {labels: endpoint.traffic for labels, endpoint in endpoints.items()}
    yield from _families("endpoint_", _TRAFFIC, traffic)
    yield from _families("endpoint_", (_EJECTED,), endpoints)
    failures = {labels: endpoint.failures_by_cause for labels, endpoint in endpoints.items()}
    yield _by_cause("endpoint_failures", _FAILURES, failures)


def _families(
    prefix: str, table: Iterable[_Series[_View]], rows: Mapping[str, _View]
) -> Iterator[Family]:
    """Return the families of a table, each with a value per row; rare ones without zeros."""
    for series in table:
        # A list, as a generator would read the value of a later series if it is read late.
        samples = [(labels, series.value(row)) for labels, row in rows.items()]
        if series.is_rare and prefix != "node_":
            samples = [sample for sample in samples if sample[1]]
        yield series.make(f"{PREFIX}{prefix}{series.name}", series.help, samples)


def _waits(prefix: str, rows: Mapping[str, ServicePortView | TotalsView]) -> Iterator[Family]:
    """Return how long TCP clients waited, as histograms."""
    yield _times(
        f"{prefix}connect_duration_seconds",
        "How long clients waited until an endpoint answered, failed dials included",
        {labels: row.connect_times for labels, row in rows.items()},
    )
    yield _times(
        f"{prefix}first_byte_duration_seconds",
        "How long clients waited for an endpoint's first byte, from its answer or their own first "
        "byte, whichever came later",
        {labels: row.first_byte_times for labels, row in rows.items()},
    )


def _times(name: str, text: str, rows: Mapping[str, Times]) -> Family:
    series = [
        Buckets(labels, times.bounds, times.counts, times.seconds)
        for labels, times in rows.items()
        if times.counts
    ]
    return histogram(PREFIX + name, text, series)


def _by_cause(name: str, text: str, rows: Mapping[str, Mapping[CauseCode, int]]) -> Family:
    """Return a counter with a series for each cause that a row has."""
    samples = [
        (f'{labels[:-1]},cause="{cause}"}}' if labels else f'{{cause="{cause}"}}', count)
        for labels, counts in rows.items()
        for cause, count in counts.items()
    ]
    return counter(PREFIX + name, text, samples)


def _problems(view: StatusView) -> Family:
    samples: dict[str, float] = {}
    for item in view.ignored:
        if item.is_conflict:
            names = (*item.service, item.port, "", "", "", item.cause.code)
            samples[labels_text((*PORT_LABELS, "reason"), names)] = 1
    for port in view.ports:
        state = judge(port)
        if state.is_problem:
            labels = (*_port_labels(port), state.code or state.word.replace(" ", "-"))
            samples[labels_text((*PORT_LABELS, "reason"), labels)] = 1
    return gauge(
        f"{PREFIX}service_port_problem",
        "1 where clients of a Service port are refused, dropped or not answered, or another "
        "Service has its address, with the code of the first cause; "
        "not where externalTrafficPolicy: Local drops those from outside",
        samples.items(),
    )


def _ignored(items: Iterable[IgnoredService]) -> Family:
    samples: dict[str, float] = {}
    for item in items:
        if not item.is_conflict:
            names = (*item.service, item.port, item.cause.code)
            samples[labels_text(("namespace", "service", "port", "reason"), names)] = 1
    return gauge(
        f"{PREFIX}service_ignored",
        "1 for a Service, or a port of it, that this proxy doesn't serve by design",
        samples.items(),
    )


def _endpoint_states(ports: Mapping[str, ServicePortView]) -> Family:
    samples = []
    for labels, port in ports.items():
        counts = dict.fromkeys(ENDPOINT_STATES, 0)
        for endpoint in port.endpoints:
            counts[state_label(endpoint)] += 1
        for state, count in counts.items():
            # All six for each port would nearly double the page for rows of zeros.
            if count or state == "ready":
                samples.append((f'{labels[:-1]},state="{state}"}}', count))
    return gauge(f"{PREFIX}endpoints", "Endpoints by state", samples)


def _port_labels(port: ServicePortView) -> tuple[str, ...]:
    key = port.plan.key
    namespace, service, name = key.name
    return namespace, service, name, port.plan.protocol, str(key.family), key.side
