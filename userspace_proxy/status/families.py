"""Maps a status view to metric families and their labels.

Rule 1: a series never appears twice, whatever the view holds; Prometheus would throw
the whole scrape away.
Rule 2: labels are names from the plan, never of clients, so their number is bounded by
what the cluster holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from .problems import judge
from .view import EndpointView, HealthCheckView, ServicePortView, StatusView, WorkerView

PORT_LABELS = ("namespace", "service", "port", "protocol", "family", "side")
"""``side`` is empty, which Prometheus takes for absent, but for frontends with a policy of
their own; sums over a Service port are right without asking for it."""
ENDPOINT_LABELS = (*PORT_LABELS, "endpoint")
WORKER_LABELS = ("worker",)
HEALTH_LABELS = ("namespace", "service")
ENDPOINT_STATES = ("ready", "not_ready", "terminating", "ejected", "refused", "not_used")
"""``not_used``: traffic policy or hints keep this node's clients from it."""

_PortRow = tuple[tuple[str, ...], ServicePortView]
_EndpointRow = tuple[tuple[str, ...], EndpointView]


class _Series(NamedTuple):
    """One metric with one value a row."""

    name: str
    help: str
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]


_PORT_SERIES: tuple[tuple[_Series, Callable[[ServicePortView], float]], ...] = (
    (
        _Series(
            "userspace_proxy_connections",
            "Connections (UDP: flows) since the start",
            CounterMetricFamily,
        ),
        lambda port: port.connections,
    ),
    (
        _Series(
            "userspace_proxy_connections_preserved",
            "Connections (UDP: flows) in which the endpoint saw the client's own address",
            CounterMetricFamily,
        ),
        lambda port: port.preserved,
    ),
    (
        _Series(
            "userspace_proxy_connections_active",
            "Open connections (UDP: live flows)",
            GaugeMetricFamily,
        ),
        lambda port: port.active,
    ),
    (
        _Series(
            "userspace_proxy_connections_refused",
            "Connections that no endpoint answered, and datagrams without an endpoint",
            CounterMetricFamily,
        ),
        lambda port: port.refused,
    ),
    (
        _Series(
            "userspace_proxy_datagrams_dropped",
            "UDP datagrams lost at this proxy's sockets, mostly because a buffer was full; with "
            "source ranges also those from other sources",
            CounterMetricFamily,
        ),
        lambda port: port.dropped_datagrams,
    ),
    (
        _Series(
            "userspace_proxy_connections_evicted",
            "Connections reset at the descriptor limit (UDP: flows ended in a full table) to make "
            "room for others",
            CounterMetricFamily,
        ),
        lambda port: port.evicted,
    ),
    (
        _Series(
            "userspace_proxy_local_shortages",
            "Dials that failed because this node had no source port, descriptor or memory left",
            CounterMetricFamily,
        ),
        lambda port: port.shortages,
    ),
    (
        _Series("userspace_proxy_received_bytes", "Bytes from clients", CounterMetricFamily),
        lambda port: port.received_bytes,
    ),
    (
        _Series("userspace_proxy_sent_bytes", "Bytes to clients", CounterMetricFamily),
        lambda port: port.sent_bytes,
    ),
    (
        _Series(
            "userspace_proxy_usable_endpoints",
            "Endpoints that may serve from this node now; clients are refused or dropped at 0",
            GaugeMetricFamily,
        ),
        lambda port: sum(e.is_usable for e in port.endpoints),
    ),
    (
        _Series(
            "userspace_proxy_service_port_problem",
            "1 where clients of a Service port are refused, dropped or not answered; not where "
            "externalTrafficPolicy: Local drops those from outside",
            GaugeMetricFamily,
        ),
        lambda port: judge(port).is_problem,
    ),
)

_ENDPOINT_SERIES: tuple[tuple[_Series, Callable[[EndpointView], float]], ...] = (
    (
        _Series(
            "userspace_proxy_endpoint_connections",
            "Connections (UDP: flows) to this endpoint since the start",
            CounterMetricFamily,
        ),
        lambda endpoint: endpoint.connections,
    ),
    (
        _Series(
            "userspace_proxy_endpoint_connections_preserved",
            "Connections (UDP: flows) in which this endpoint saw the client's own address",
            CounterMetricFamily,
        ),
        lambda endpoint: endpoint.preserved,
    ),
    (
        _Series(
            "userspace_proxy_endpoint_connections_active",
            "Open connections (UDP: live flows) to this endpoint",
            GaugeMetricFamily,
        ),
        lambda endpoint: endpoint.active,
    ),
    (
        _Series(
            "userspace_proxy_endpoint_failures",
            "Dials of this endpoint that failed",
            CounterMetricFamily,
        ),
        lambda endpoint: endpoint.failures,
    ),
    (
        _Series(
            "userspace_proxy_endpoint_received_bytes",
            "Bytes from clients to this endpoint",
            CounterMetricFamily,
        ),
        lambda endpoint: endpoint.received_bytes,
    ),
    (
        _Series(
            "userspace_proxy_endpoint_sent_bytes",
            "Bytes from this endpoint to clients",
            CounterMetricFamily,
        ),
        lambda endpoint: endpoint.sent_bytes,
    ),
    (
        _Series(
            "userspace_proxy_endpoint_ejected",
            "1 while this endpoint is left out because dials to it failed",
            GaugeMetricFamily,
        ),
        lambda endpoint: endpoint.ejected_for_s is not None,
    ),
)

_WORKER_SERIES: tuple[tuple[_Series, Callable[[WorkerView], float]], ...] = (
    (
        _Series(
            "userspace_proxy_worker_up",
            "1 while this process that carries traffic runs",
            GaugeMetricFamily,
        ),
        lambda worker: worker.pid != 0,
    ),
    (
        _Series(
            "userspace_proxy_worker_restarts",
            "Restarts of this process that carries traffic",
            CounterMetricFamily,
        ),
        lambda worker: worker.restarts,
    ),
    (
        _Series(
            "userspace_proxy_worker_connections_active",
            "Open TCP connections of this process",
            GaugeMetricFamily,
        ),
        lambda worker: worker.connections,
    ),
    (
        _Series(
            "userspace_proxy_worker_flows_active",
            "Live UDP flows of this process",
            GaugeMetricFamily,
        ),
        lambda worker: worker.flows,
    ),
)


_HEALTH_SERIES: tuple[tuple[_Series, Callable[[HealthCheckView], float]], ...] = (
    (
        _Series(
            "userspace_proxy_health_check_local_endpoints",
            "Ready endpoints on this node, as the Service's health check node port returns them",
            GaugeMetricFamily,
        ),
        lambda check: check.local_endpoints,
    ),
    (
        _Series(
            "userspace_proxy_health_check_problem",
            "1 where a health check node port does not answer, or not everywhere",
            GaugeMetricFamily,
        ),
        lambda check: bool(check.problem),
    ),
)


def families_of(view: StatusView) -> Iterator[Metric]:
    """Return every metric of a view, one family at a time."""
    yield from _node_families(view)
    checks = {tuple(map(_label, c.service.split("/", 1))): c for c in view.health_checks}
    for series, of_check in _HEALTH_SERIES if checks else ():
        family = series.kind(series.name, series.help, labels=HEALTH_LABELS)
        for labels, check in checks.items():
            family.add_metric(labels, of_check(check))
        yield family
    workers = {str(worker.index): worker for worker in view.workers}
    for series, of_worker in _WORKER_SERIES if workers else ():
        family = series.kind(series.name, series.help, labels=WORKER_LABELS)
        for index, worker in workers.items():
            family.add_metric((index,), of_worker(worker))
        yield family
    if workers:
        yield _turns(workers)
    rows = _port_rows(view)
    for series, of_port in _PORT_SERIES:
        family = series.kind(series.name, series.help, labels=PORT_LABELS)
        for labels, port in rows:
            family.add_metric(labels, of_port(port))
        yield family
    yield _endpoint_states(rows)
    endpoint_rows = _endpoint_rows(rows)
    for series, of_endpoint in _ENDPOINT_SERIES:
        family = series.kind(series.name, series.help, labels=ENDPOINT_LABELS)
        for labels, endpoint in endpoint_rows:
            family.add_metric(labels, of_endpoint(endpoint))
        yield family


def _turns(workers: dict[str, WorkerView]) -> Metric:
    """Return how long the workers' event loops were busy at a time; all else waits so long."""
    family = HistogramMetricFamily(
        "userspace_proxy_worker_loop_iteration_duration_seconds",
        "How long one turn of a worker's event loop took",
        labels=WORKER_LABELS,
    )
    for index, worker in workers.items():
        bounds = ["+Inf" if bound is None else str(bound) for bound, _ in worker.iterations]
        counts = accumulate(count for _, count in worker.iterations)
        if bounds:
            family.add_metric((index,), list(zip(bounds, counts, strict=True)), worker.iterations_s)
    return family


def state_label(endpoint: EndpointView) -> str:
    """Return which of :data:`ENDPOINT_STATES` an endpoint is counted in.

    The view's words name the reason of a refusal; a label must come from a short list.
    """
    if endpoint.is_usable and endpoint.ejected_for_s is not None:
        return "ejected"
    if endpoint.state.startswith("terminating"):
        return "terminating"
    if endpoint.is_left_out:
        return "not_used"
    return {"ready": "ready", "not ready": "not_ready"}.get(endpoint.state, "refused")


def _node_families(view: StatusView) -> Iterator[Metric]:
    """Return what there is once a node; last in kube-proxy's names, first in ours."""
    info = {"version": _label(view.version), "node": _label(view.node)}
    yield InfoMetricFamily("userspace_proxy_build", "Version and node of this proxy", value=info)
    source, steering, sync = view.source, view.steering, view.sync
    for name, text, value in (
        ("ready", "1 while the first plan is in force and nothing drains", view.is_ready),
        ("node_eligible", "0 while the Node is to be deleted", view.node_is_eligible),
        (
            "preserves_client_address",
            "1 while endpoints see client addresses where possible",
            view.client_address.is_on,
        ),
        (
            "accepting",
            "0 while accepting is paused because no descriptors are left",
            view.is_accepting,
        ),
        ("descriptors", "Descriptors in use by the data plane", view.descriptors),
        ("descriptors_limit", "Limit of the descriptors of this process", view.descriptor_limit),
        ("service_ports", "Service ports that are served, by family and side", len(view.ports)),
        ("ignored", "Services and ports that get no listener", len(view.ignored)),
        ("conntrack_entries", "Entries of the kernel's conntrack table", view.tracking.entries),
        (
            "conntrack_entries_limit",
            "Limit of entries in the kernel's conntrack table",
            view.tracking.limit,
        ),
        (
            "conntrack_full",
            "1 while the kernel's conntrack table is full and new connections fail",
            view.tracking.is_full,
        ),
        ("source_synced", "1 once everything has been read from the source", source.is_synced),
        ("source_problems", "Problems of the source now", len(source.problems)),
        ("steering_problems", "1 while steering fails", bool(steering.problem)),
        (
            "steering_drift",
            "1 while rules may differ from the plan and can't be repaired",
            steering.has_drifted,
        ),
    ):
        yield GaugeMetricFamily(f"userspace_proxy_{name}", text, value=value)
    for name, text, count in (
        ("source_restarts", "Watches that restarted with a list", source.restarts),
        ("steering_repairs", "Frontends and guard rules repaired after drift", steering.repairs),
        (
            "steering_helper_restarts",
            "Helper processes restarted after a crash",
            steering.helper_restarts,
        ),
        ("conntrack_drops", "Packets that conntrack dropped since boot", view.tracking.drops),
        ("sync_rounds", "Rounds of plan, diff and apply", sync.rounds),
        ("sync_failures", "Rounds that failed", sync.failures),
        (
            "log_lines_dropped",
            "Log lines dropped because stderr was not read, or could not be written",
            view.dropped_log_lines,
        ),
    ):
        yield CounterMetricFamily(f"userspace_proxy_{name}", text, value=count)
    yield from _kube_proxy_families(view)


def _kube_proxy_families(view: StatusView) -> Iterator[Metric]:
    """Return what kube-proxy shows too, so that its alerts and dashboards go on working.

    It labels them by IP family since 1.34, because it has a loop for each; a round of
    ours is for both, and a query that sums or takes the maximum sees no difference.

    Source: kubernetes/kubernetes pkg/proxy/metrics/metrics.go.
    """
    prefix, sync = "kubeproxy_sync_proxy_rules", view.sync
    gauges: tuple[tuple[str, str, float], ...] = (
        ("last_timestamp_seconds", "When everything was last in force", sync.last_done),
        ("last_queued_timestamp_seconds", "When the last change was received", sync.last_queued),
        (
            "service_changes_pending",
            "Changes of Services not in force yet",
            sync.service_changes_pending,
        ),
        (
            "endpoint_changes_pending",
            "Changes of endpoints not in force yet",
            sync.endpoint_changes_pending,
        ),
    )
    for name, text, value in gauges:
        yield GaugeMetricFamily(f"{prefix}_{name}", text, value=value)
    for name, text, count in (
        ("service_changes", "Changes of Services that were received", sync.service_changes),
        ("endpoint_changes", "Changes of endpoints that were received", sync.endpoint_changes),
    ):
        yield CounterMetricFamily(f"{prefix}_{name}", text, value=count)


def _port_rows(view: StatusView) -> list[_PortRow]:
    rows: dict[tuple[str, ...], ServicePortView] = {}
    for port in view.ports:
        labels = (
            port.namespace,
            port.service,
            port.port,
            port.protocol,
            port.family,
            port.side,
        )
        rows.setdefault(tuple(map(_label, labels)), port)
    return list(rows.items())


def _endpoint_rows(ports: list[_PortRow]) -> list[_EndpointRow]:
    rows: dict[tuple[str, ...], EndpointView] = {}
    for labels, port in ports:
        for endpoint in port.endpoints:
            rows.setdefault((*labels, _label(endpoint.address)), endpoint)
    return list(rows.items())


def _endpoint_states(rows: list[_PortRow]) -> Metric:
    family = GaugeMetricFamily(
        "userspace_proxy_endpoints", "Endpoints by state", labels=(*PORT_LABELS, "state")
    )
    for labels, port in rows:
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
