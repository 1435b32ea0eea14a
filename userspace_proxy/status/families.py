"""Maps a status view to the metrics of Service ports and endpoints, in the requested detail.

    detail      series                                                   how many
    node        node_…, the sums over all; service_port_problem          a few hundred
    service     and Service ports that have had a client                 six for each
                service_ignored                                          one for each
    endpoint    and dialled endpoints; all endpoints by state;           six for each endpoint,
                how long clients of each Service port waited             28 for each Service port

Rule 1: a series never appears twice, because Prometheus would discard the whole scrape.
Rule 2: labels are names from the plan, so their number is limited by the size of the cluster. Only
:func:`edge_family` has clients as labels; its table bounds their number (``facts.edges``).
Rule 3: the node's sums, which alerts use, exist from startup, at 0, so that Prometheus sees the
first increment of each. The series of a Service port appear with its first client, and rare series
once they aren't 0: most Services of a cluster never have a client on this node.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter

from ..causes.cause import DIAL_CAUSES, Cause, CauseCode
from ..facts import (
    Detail,
    EndpointFacts,
    Figure,
    IgnoredFacts,
    PortFacts,
    PortFigures,
    StatusFacts,
    Times,
    TotalsFacts,
    Traffic,
    figures_of,
)
from ..facts.edges import EDGES_MAX, EdgesFacts
from ..model import DataPath, ServiceKey
from ..policy.usable import EndpointState
from .exposition import Buckets, Family, counter, gauge, histogram, labels_text
from .node_families import PREFIX, node_families

PORT_LABELS = ("namespace", "service", "port", "protocol", "family", "side")
"""``side`` is set only for frontends that have their own policy; sums over a Service port are
correct without it."""
ENDPOINT_STATES = ("ready", "not_ready", "terminating", "ejected", "refused", "not_used")
"""``not_used``: traffic policy or hints exclude the endpoint for this node's clients."""
_CLIENT_LABELS = ("namespace", "service", "port", "client")

# The figures that are single numbers, by name.
_SCALARS = {name: one for name, one in figures_of(PortFigures).items() if one.kind != "histogram"}
_COUNTED = attrgetter(*_SCALARS)
_CARRIED = attrgetter(*figures_of(Traffic))

_DENIED = _SCALARS["denied"]
_FAILURES = "Dials that failed, by cause"


def families_of(view: StatusFacts, detail: Detail) -> Iterator[Family]:
    """Yield the metric families of a view, up to a level of detail."""
    yield from node_families(view)
    yield from _families("node_", _SCALARS, {"": view.totals})
    known = view.totals.failures_by_cause
    failures = {"": {cause: known.get(cause, 0) for cause in DIAL_CAUSES}}
    yield _by_cause("node_dial_failures", _FAILURES, failures)
    yield from _waits("node_", {"": view.totals})
    yield _problems(view)
    if detail == "node":
        return
    yield _ignored(view.ignored)
    yield _demand(view)
    yield from path_families(_by_labels(p for p in view.ports if not p.has_default_path))
    used = _by_labels(filter(_has_had_clients, view.ports))
    yield from _port_families(used)
    if detail == "endpoint":
        yield _endpoint_states(_by_labels(view.ports))
        yield from _endpoint_families(used)
        yield from _waits("", used)


def state_label(endpoint: EndpointFacts) -> str:
    """Return the :data:`ENDPOINT_STATES` value under which an endpoint is counted.

    ``endpoint.state`` may contain the cause of a refusal, but a label's values must be few.
    """
    if endpoint.is_usable and endpoint.ejected_for_s is not None:
        return "ejected"
    if endpoint.is_left_out:
        return "not_used"
    if endpoint.code is CauseCode.ENDPOINT_NOT_ALLOWED:
        return "refused"
    if endpoint.state in (EndpointState.TERMINATING, EndpointState.HAS_ENDED):
        return "terminating"
    return "ready" if endpoint.code is None else "not_ready"


def _by_labels(ports: Iterable[PortFacts]) -> dict[str, PortFacts]:
    """Return Service ports by their labels as text; if labels are equal, the first port."""
    by_labels: dict[str, PortFacts] = {}
    for port in ports:
        by_labels.setdefault(labels_text(PORT_LABELS, _port_labels(port)), port)
    return by_labels


def _has_had_clients(port: PortFacts) -> bool:
    return bool(port.connections or port.failures or any(_COUNTED(port)))


def _port_families(ports: Mapping[str, PortFacts]) -> Iterator[Family]:
    shown = {name: one for name, one in _SCALARS.items() if one.detail != "node"}
    yield from _families("", shown, ports)
    failures = {labels: port.failures_by_cause for labels, port in ports.items()}
    yield _by_cause("dial_failures", _FAILURES, failures)
    denied = {at: _sums(port.turned_away) for at, port in ports.items()}
    yield _by_cause("packets_denied", _DENIED.help, denied)
    yield gauge(
        f"{PREFIX}usable_endpoints",
        "Endpoints that may serve from this node now; clients are refused or dropped at 0",
        [(at, port.usable) for at, port in ports.items()],
    )


def _endpoint_families(ports: Mapping[str, PortFacts]) -> Iterator[Family]:
    endpoints: dict[str, EndpointFacts] = {}
    for labels, port in ports.items():
        for endpoint in port.endpoints:
            is_ejected = endpoint.ejected_for_s is not None
            if is_ejected or endpoint.failures or any(_CARRIED(endpoint)):
                text = f'{labels[:-1]},endpoint="{endpoint.address}"}}'
                endpoints.setdefault(text, endpoint)
    yield from _families("endpoint_", figures_of(Traffic), endpoints)
    yield gauge(
        f"{PREFIX}endpoint_ejected",
        "1 while this endpoint is left out because dials to it failed",
        [(labels, one.ejected_for_s is not None) for labels, one in endpoints.items()],
    )
    failures = {labels: endpoint.failures_by_cause for labels, endpoint in endpoints.items()}
    yield _by_cause("endpoint_failures", _FAILURES, failures)


def _families(
    prefix: str, table: Mapping[str, Figure], rows: Mapping[str, Traffic]
) -> Iterator[Family]:
    """Yield a table's families with a value per row; rare figures omit zeros, except the node's."""
    for name, figure in table.items():
        value = attrgetter(name)
        # Make a list: a generator that is read later would use a later iteration's variables.
        samples = [(labels, value(row)) for labels, row in rows.items()]
        if figure.is_rare and prefix != "node_":
            samples = [sample for sample in samples if sample[1]]
        yield Family(figure.kind, f"{PREFIX}{prefix}{figure.metric}", figure.help, samples)


def _waits(prefix: str, rows: Mapping[str, PortFigures]) -> Iterator[Family]:
    """Yield histograms of how long TCP clients waited."""
    for name, figure in figures_of(PortFigures).items():
        if figure.kind == "histogram":
            value = attrgetter(name)
            waited = {labels: value(row) for labels, row in rows.items()}
            yield _times(prefix + figure.metric, figure.help, waited)


def _times(name: str, text: str, rows: Mapping[str, Times]) -> Family:
    series = [
        Buckets(labels, times.bounds, times.counts, times.seconds)
        for labels, times in rows.items()
        if times.counts
    ]
    return histogram(PREFIX + name, text, series)


def _sums(causes: Iterable[Cause]) -> Mapping[CauseCode, int]:
    counts: Counter[CauseCode] = Counter()
    for cause in causes:
        counts[cause.code] += cause.count
    return counts


def _by_cause(name: str, text: str, rows: Mapping[str, Mapping[CauseCode, int]]) -> Family:
    """Return a counter with a series for each row and cause."""
    samples = [
        (f'{labels[:-1]},cause="{cause}"}}' if labels else f'{{cause="{cause}"}}', count)
        for labels, counts in rows.items()
        for cause, count in counts.items()
    ]
    return counter(PREFIX + name, text, samples)


def _problems(view: StatusFacts) -> Family:
    samples: dict[str, float] = {}
    for item in view.ignored:
        if item.is_conflict:
            names = (*item.key, item.port, "", "", "", item.cause.code)
            samples[labels_text((*PORT_LABELS, "reason"), names)] = 1
    for port in view.ports:
        state = port.state
        if state.is_problem:
            labels = (*_port_labels(port), state.code or state.word.search_word)
            samples[labels_text((*PORT_LABELS, "reason"), labels)] = 1
    return gauge(
        f"{PREFIX}service_port_problem",
        "1 where clients of a Service port are refused, dropped or not answered, or another "
        "Service has its address, with the code of the first cause; "
        "not where externalTrafficPolicy: Local drops those from outside",
        samples.items(),
    )


def _ignored(items: Iterable[IgnoredFacts]) -> Family:
    samples: dict[str, float] = {}
    for item in items:
        if not item.is_conflict:
            names = (*item.key, item.port, item.cause.code)
            samples[labels_text(("namespace", "service", "port", "reason"), names)] = 1
    return gauge(
        f"{PREFIX}service_ignored",
        "1 for a Service, or a port of it, that this proxy doesn't serve by design",
        samples.items(),
    )


def _endpoint_states(ports: Mapping[str, PortFacts]) -> Family:
    samples = []
    for labels, port in ports.items():
        counts = dict.fromkeys(ENDPOINT_STATES, 0)
        for endpoint in port.endpoints:
            counts[state_label(endpoint)] += 1
        for state, count in counts.items():
            # All six states of each port would nearly double the page, mostly with zeros, so omit
            # zeros, except for ready endpoints.
            if count or state == "ready":
                samples.append((f'{labels[:-1]},state="{state}"}}', count))
    return gauge(f"{PREFIX}endpoints", "Endpoints by state", samples)


def _port_labels(port: PortFacts) -> tuple[str, ...]:
    key = port.plan.key
    namespace, service, name = key.name
    return namespace, service, name, port.plan.protocol, str(key.family), key.side


def path_families(ports: Mapping[str, PortFacts]) -> Iterator[Family]:
    """Yield the kernel path's metrics of Service ports, given by their labels as text."""
    yield gauge(
        f"{PREFIX}service_port_path",
        "1 for a Service port whose new connections don't pass through the proxy; "
        "kernel_path_connections counts them",
        [
            (f'{labels[:-1]},path="{port.path}"}}', 1.0)
            for labels, port in ports.items()
            if port.path is not DataPath.USERSPACE
        ],
    )
    yield counter(
        f"{PREFIX}kernel_path_connections",
        figures_of(TotalsFacts)["kernel_connections"].help,
        [
            (labels, port.kernel_connections)
            for labels, port in ports.items()
            # Like a port's other counters, this counter is shown once the port has had a client.
            if port.kernel_connections
        ],
    )


def edge_family(edges: EdgesFacts) -> Family:
    """Return the connections of each client to each Service port, over all families and sides."""
    counts: Counter[str] = Counter()
    for edge in edges.edges:
        names = edge.namespace, edge.name, edge.port, edge.client_pod or edge.client
        counts[labels_text(_CLIENT_LABELS, names)] += edge.connections
    counts[labels_text(("client",), ("other",))] = edges.others
    text = (
        "Connections (UDP: flows) by client, a pod of a Service or an address, refused ones "
        f"included; at most {EDGES_MAX} series, and one for all other clients"
    )
    return counter(f"{PREFIX}client_connections", text, counts.items())


def demand_of(view: StatusFacts) -> Mapping[ServiceKey, int]:
    """Return the demand of every Service with ``hold``, sorted by Service; 0 without demand."""
    holding = {port.plan.key.name.service for port in view.ports if port.hold_s is not None}
    return {key: view.demand.get(key, 0) for key in sorted(holding)}


def render_demand(view: StatusFacts) -> bytes:
    """Return the demand on this node, and on all nodes if known, as JSON by namespace and name.

    Source: KEDA's scaler ``metrics-api`` reads a number by a path, here ``cluster.shop.web``. A
    missing path is an error, after which KEDA changes nothing.
    """
    answer = {"demand": _by_namespace(demand_of(view))}
    if (of_all := view.cluster_demand) is not None:
        answer["cluster"] = _by_namespace(of_all)
    return json.dumps(answer).encode()


def _by_namespace(demand: Mapping[ServiceKey, int]) -> dict[str, dict[str, int]]:
    by_namespace: dict[str, dict[str, int]] = {}
    for key, count in demand.items():
        by_namespace.setdefault(key.namespace, {})[key.name] = count
    return by_namespace


def _demand(view: StatusFacts) -> Family:
    rows = [
        (labels_text(("namespace", "service"), key), demand)
        for key, demand in demand_of(view).items()
    ]
    return gauge(
        f"{PREFIX}demand",
        "How much a Service with the annotation hold needs pods: clients that wait, open "
        "connections (UDP: live flows); at least 1 until idle-after, or 90 s, after the last",
        rows,
    )
