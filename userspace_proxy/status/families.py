"""Maps a status view to metric families and their labels.

Rule 1: a series never appears twice, whatever the view contains, because Prometheus would discard
the whole scrape.
Rule 2: labels are names from the plan, never of clients, so the size of the cluster bounds their
number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Generic, NamedTuple, TypeVar

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from ..model import CauseCode
from .port_state import judge
from .view import (
    EndpointView,
    HealthCheckView,
    LastStateView,
    ServicePortView,
    StatusView,
    SyncView,
    Traffic,
    WorkerView,
)

PORT_LABELS = ("namespace", "service", "port", "protocol", "family", "side")
"""``side`` is empty, which Prometheus treats as absent, except for frontends with a policy of
their own; sums over a Service port are right without it."""
ENDPOINT_LABELS = (*PORT_LABELS, "endpoint")
WORKER_LABELS = ("worker",)
HEALTH_LABELS = ("namespace", "service")
ENDPOINT_STATES = ("ready", "not_ready", "terminating", "ejected", "refused", "not_used")
"""``not_used``: traffic policy or hints keep this node's clients from it."""

_PREFIX = "userspace_proxy_"
_KUBE_PROXY = "kubeproxy_sync_proxy_rules_"

_Gauge = GaugeMetricFamily
_Counter = CounterMetricFamily
_View = TypeVar("_View")


class _Series(NamedTuple, Generic[_View]):
    """One metric with one value per row."""

    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    help: str
    value: Callable[[_View], float]


_CONNECTIONS = "Connections (UDP: flows)"

_TRAFFIC: tuple[_Series[Traffic], ...] = (
    _Series(_Counter, "connections", f"{_CONNECTIONS} since the start", lambda t: t.connections),
    _Series(
        _Counter,
        "connections_preserved",
        f"{_CONNECTIONS} in which the endpoint saw the client's own address",
        lambda t: t.preserved,
    ),
    _Series(_Gauge, "connections_active", "Open connections (UDP: live flows)", lambda t: t.active),
    _Series(_Counter, "received_bytes", "Bytes from clients", lambda t: t.received_bytes),
    _Series(_Counter, "sent_bytes", "Bytes to clients", lambda t: t.sent_bytes),
)
"""For each Service port, and with the prefix ``endpoint_`` for each endpoint."""

_PORT: tuple[_Series[ServicePortView], ...] = (
    _Series(
        _Counter,
        "connections_refused",
        "Connections that no endpoint answered, and datagrams without an endpoint",
        lambda port: port.refused,
    ),
    _Series(
        _Counter,
        "datagrams_dropped",
        "UDP datagrams lost at this proxy's sockets, mostly because a buffer was full; with "
        "source ranges also those from other sources",
        lambda port: port.dropped_datagrams,
    ),
    _Series(
        _Counter,
        "connections_evicted",
        "Connections reset at the limit of descriptors or memory (UDP: flows ended in a full "
        "table)",
        lambda port: port.evicted,
    ),
    _Series(
        _Counter,
        "connections_evicted_for_memory",
        "Of these, connections reset because memory was short",
        lambda port: port.evicted_for_memory,
    ),
    _Series(
        _Counter,
        "local_shortages",
        "Dials that failed because this node had no source port, descriptor or memory left",
        lambda port: port.shortages,
    ),
    _Series(
        _Gauge,
        "usable_endpoints",
        "Endpoints that may serve from this node now; clients are refused or dropped at 0",
        lambda port: sum(e.verdict.is_usable for e in port.endpoints),
    ),
    _Series(
        _Gauge,
        "service_port_problem",
        "1 where clients of a Service port are refused, dropped or not answered; not where "
        "externalTrafficPolicy: Local drops those from outside",
        lambda port: judge(port).is_problem,
    ),
)

_ENDPOINT: tuple[_Series[EndpointView], ...] = (
    _Series(
        _Counter, "failures", "Dials of this endpoint that failed", lambda e: e.traffic.failures
    ),
    _Series(
        _Gauge,
        "ejected",
        "1 while this endpoint is left out because dials to it failed",
        lambda e: e.ejected_for_s is not None,
    ),
)

_WORKER: tuple[_Series[WorkerView], ...] = (
    _Series(_Gauge, "up", "1 while this worker process runs", lambda w: w.pid != 0),
    _Series(
        _Gauge,
        "connections_active",
        "Open TCP connections of this worker process",
        lambda w: w.connections,
    ),
    _Series(_Gauge, "flows_active", "Live UDP flows of this worker process", lambda w: w.flows),
)

_HEALTH: tuple[_Series[HealthCheckView], ...] = (
    _Series(
        _Gauge,
        "local_endpoints",
        "Ready endpoints on this node, as the Service's health check node port returns them",
        lambda health: health.check.local_endpoints,
    ),
    _Series(
        _Gauge,
        "problem",
        "1 where a health check node port does not answer, or not everywhere",
        lambda health: bool(health.problem),
    ),
)


def families_of(view: StatusView) -> Iterator[Metric]:
    """Return every metric of a view, one family at a time."""
    yield from _node_families(view)
    checks = {tuple(map(_label, health.check.service)): health for health in view.health_checks}
    yield from _families("health_check_", _HEALTH, HEALTH_LABELS, checks)
    workers: dict[tuple[str, ...], WorkerView] = {(str(w.index),): w for w in view.workers}
    yield from _families("worker_", _WORKER, WORKER_LABELS, workers)
    if workers:
        yield _worker_restarts(workers)
        yield _loop_iterations(workers)
    ports: dict[tuple[str, ...], ServicePortView] = {}
    for port in view.ports:
        ports.setdefault(_port_labels(port), port)
    traffic = {labels: port.traffic for labels, port in ports.items()}
    yield from _families("", _TRAFFIC, PORT_LABELS, traffic)
    yield from _families("", _PORT, PORT_LABELS, ports)
    yield _endpoint_states(ports)
    endpoints: dict[tuple[str, ...], EndpointView] = {}
    for labels, port in ports.items():
        for endpoint in port.endpoints:
            endpoints.setdefault((*labels, _label(str(endpoint.verdict.address))), endpoint)
    traffic = {labels: endpoint.traffic for labels, endpoint in endpoints.items()}
    yield from _families("endpoint_", _TRAFFIC, ENDPOINT_LABELS, traffic)
    yield from _families("endpoint_", _ENDPOINT, ENDPOINT_LABELS, endpoints)


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


def _families(
    prefix: str,
    table: Iterable[_Series[_View]],
    names: Sequence[str],
    rows: Mapping[tuple[str, ...], _View],
) -> Iterator[Metric]:
    """Return the families of a table, each with a value per row; none without rows."""
    for series in table if rows else ():
        family = series.kind(f"{_PREFIX}{prefix}{series.name}", series.help, labels=names)
        for labels, row in rows.items():
            family.add_metric(labels, series.value(row))
        yield family


def _worker_restarts(workers: Mapping[tuple[str, ...], WorkerView]) -> Metric:
    family = CounterMetricFamily(
        f"{_PREFIX}worker_restarts",
        "Restarts of this worker process, because it ended or because it hung and was killed",
        labels=(*WORKER_LABELS, "cause"),
    )
    for labels, worker in workers.items():
        family.add_metric((*labels, "ended"), worker.restarts - worker.hung)
        family.add_metric((*labels, "hung"), worker.hung)
    return family


def _loop_iterations(workers: Mapping[tuple[str, ...], WorkerView]) -> Metric:
    """Return how long iterations of the workers' event loops took; other events wait as long."""
    family = HistogramMetricFamily(
        f"{_PREFIX}worker_loop_iteration_duration_seconds",
        "How long one iteration of a worker's event loop took",
        labels=WORKER_LABELS,
    )
    for labels, worker in workers.items():
        bounds = ["+Inf" if bound is None else str(bound) for bound, _ in worker.iterations]
        counts = accumulate(count for _, count in worker.iterations)
        if bounds:
            family.add_metric(labels, list(zip(bounds, counts, strict=True)), worker.iterations_s)
    return family


def _node_families(view: StatusView) -> Iterator[Metric]:
    info = {"version": _label(view.version), "node": _label(view.node)}
    yield InfoMetricFamily(f"{_PREFIX}build", "Version and node of this proxy", value=info)
    source, steering, sync, tracking = view.source, view.steering, view.sync, view.tracking
    gauges = {
        "ready": ("1 while the first plan is in force and nothing drains", view.is_ready),
        "node_eligible": ("0 while the Node is to be deleted", view.node_is_eligible),
        "preserves_client_address": (
            "1 while endpoints see client addresses where possible",
            view.client_address.is_on,
        ),
        **_resource_gauges(view),
        "service_ports": ("Service ports that are served, by family and side", len(view.ports)),
        "ignored": ("Services and ports that get no listener", len(view.ignored)),
        "conntrack_entries": ("Entries of the kernel's conntrack table", tracking.entries),
        "conntrack_entries_limit": (
            "Limit of entries in the kernel's conntrack table",
            tracking.limit,
        ),
        "conntrack_full": (
            "1 while the kernel's conntrack table is full and new connections fail",
            tracking.is_full,
        ),
        "source_synced": ("1 once everything has been read from the source", source.is_synced),
        "source_problems": ("Problems of the source now", len(source.problems)),
        "steering_problems": ("1 while steering fails", bool(steering.problem)),
        "steering_drift": (
            "1 while rules may differ from the plan and can't be repaired",
            steering.has_drifted,
        ),
    }
    counters = {
        "source_restarts": ("Watches that restarted with a list", source.restarts),
        "steering_repairs": ("Frontends and guard rules repaired after drift", steering.repairs),
        "steering_helper_restarts": (
            "Helper processes restarted after a crash",
            steering.helper_restarts,
        ),
        "conntrack_drops": ("Packets that conntrack dropped since boot", tracking.drops),
        "sync_rounds": ("Rounds of plan, diff and apply", sync.rounds),
        "sync_failures": ("Rounds that failed", sync.failures),
        "log_lines_dropped": (
            "Log lines dropped because stderr was not read, or could not be written",
            view.dropped_log_lines,
        ),
    }
    yield from _plain_families(_PREFIX, gauges, counters)
    yield from _last_state_families(view.last_state)
    yield from _kube_proxy_families(sync)


def _last_state_families(state: LastStateView) -> Iterator[Metric]:
    text = "When the last state that is served was current; 0 once the source has answered"
    gauges = {"last_state_served_timestamp_seconds": (text, state.served_at)}
    text = "Times the last state could not be written to disk"
    counters = {"last_state_failures": (text, float(state.failures))}
    yield from _plain_families(_PREFIX, gauges, counters)


def _resource_gauges(view: StatusView) -> dict[str, tuple[str, float]]:
    return {
        "accepting": (
            "0 while accepting is paused because no descriptors or too little memory is left",
            view.is_accepting,
        ),
        "descriptors": ("Descriptors in use by the data plane", view.descriptors),
        "descriptors_limit": ("Limit of the descriptors of this process", view.descriptor_limit),
        "memory_bytes": (
            "Memory in use, as far as it counts for the nearest limit; 0 without a limit",
            view.memory.used_bytes,
        ),
        "memory_limit_bytes": ("The nearest limit of memory, or 0", view.memory.limit_bytes),
        "memory_short": (
            "1 while load is shed because memory is short, and for 10 s after",
            view.memory.was_short,
        ),
    }


def _kube_proxy_families(sync: SyncView) -> Iterator[Metric]:
    """Return the metrics that kube-proxy has, too, so that its alerts and dashboards keep working.

    It labels them by IP family since 1.34, because it has one loop per family. A round of this
    proxy covers both, and a query that sums or takes the maximum sees no difference.

    Source: kubernetes/kubernetes pkg/proxy/metrics/metrics.go.
    """
    gauges = {
        "last_timestamp_seconds": ("When everything was last in force", sync.last_done),
        "last_queued_timestamp_seconds": ("When the last change was received", sync.last_queued),
        "service_changes_pending": (
            "Changes of Services not in force yet",
            sync.service_changes_pending,
        ),
        "endpoint_changes_pending": (
            "Changes of endpoints not in force yet",
            sync.endpoint_changes_pending,
        ),
    }
    counters = {
        "service_changes": ("Changes of Services that were received", sync.service_changes),
        "endpoint_changes": ("Changes of endpoints that were received", sync.endpoint_changes),
    }
    yield from _plain_families(_KUBE_PROXY, gauges, counters)


def _plain_families(
    prefix: str,
    gauges: Mapping[str, tuple[str, float]],
    counters: Mapping[str, tuple[str, float]],
) -> Iterator[Metric]:
    """Return families without labels, given their help and value by name."""
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily(prefix + name, text, value=value)
    for name, (text, value) in counters.items():
        yield CounterMetricFamily(prefix + name, text, value=value)


def _port_labels(port: ServicePortView) -> tuple[str, ...]:
    namespace, service, name = port.plan.key.name
    key = port.plan.key
    labels = (namespace, service, name, port.plan.protocol, str(key.family), key.side)
    return tuple(map(_label, labels))


def _endpoint_states(ports: Mapping[tuple[str, ...], ServicePortView]) -> Metric:
    family = GaugeMetricFamily(
        f"{_PREFIX}endpoints", "Endpoints by state", labels=(*PORT_LABELS, "state")
    )
    for labels, port in ports.items():
        counts = dict.fromkeys(ENDPOINT_STATES, 0)
        for endpoint in port.endpoints:
            counts[state_label(endpoint)] += 1
        for state, count in counts.items():
            # All six for each port would nearly double the page for rows of zeros.
            if count or state == "ready":
                family.add_metric((*labels, state), count)
    return family


def _label(text: str) -> str:
    """Return a label value that can be encoded: lone surrogates become question marks."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
