"""Maps a status view to the metrics of the whole node, including kube-proxy's metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter

from ..causes.cause import CauseCode
from ..diagnosis.problems import NODE_CODES, codes_of_node
from ..facts import Figure, StatusFacts, WorkerFacts, figures_of
from ..policy import Scope
from .exposition import Buckets, Family, counter, gauge, histogram, info, labels_text

PREFIX = "userspace_proxy_"
_KUBE_PROXY = "kubeproxy_sync_proxy_rules_"
_FAILURES = {
    "iptables": "iptables_restore_failures",
    "nftables": "nftables_sync_failures",
}
_POLICIES = {
    Scope.CLUSTER: "",
    Scope.LOCAL: "internal",
    Scope.LOCAL_FROM_OUTSIDE: "external",
}

# The first metrics, in this order. Others follow in the order of the JSON.
_FIRST = (
    "is_ready",
    "node_is_eligible",
    "client_address.is_on",
    "is_accepting",
    "descriptors",
    "descriptor_limit",
    "memory.used_bytes",
    "memory.limit_bytes",
    "memory.was_short",
    "ports",
    "ignored",
    "tracking.entries",
    "tracking.limit",
    "tracking.is_full",
    "source.is_synced",
    "source.problems",
    "steering.problem",
    "steering.has_drifted",
    "source.restarts",
    "steering.repairs",
    "steering.helper_restarts",
    "tracking.drops",
    "sync.rounds",
    "sync.failures",
    "dropped_log_lines",
    "last_state.served_at",
    "last_state.failures",
    "totals.kernel_connections",
)
_WITH_FRACTION = "last_state.failures"
"""The figure that is always written with a fraction, such as 4.0."""


def _node_figures() -> Mapping[str, Figure]:
    found = figures_of(StatusFacts)
    # Sums over Service ports are shown with the figures of Service ports.
    rest = [name for name in found if name not in _FIRST and not name.startswith("totals.")]
    return {name: found[name] for name in (*_FIRST, *rest)}


_FIGURES = _node_figures()


def node_families(view: StatusFacts) -> Iterator[Family]:
    """Yield the metrics whose number doesn't depend on the size of the cluster.

    Health check node ports are the exception: they have a series per Service.
    """
    build = {"version": view.version, "node": view.node}
    yield info(f"{PREFIX}build", "Version and node of this proxy", build)
    yield _problems(view)
    yield from _figures(view)
    yield from _kube_proxy_families(view)
    yield from _health_check_families(view)
    yield from _worker_families(view)


def _figures(view: StatusFacts) -> Iterator[Family]:
    """Yield the facts that are figures: lists as their length, texts as 1 unless they are empty.

    An unknown figure has no series.
    """
    for field, figure in _FIGURES.items():
        value = attrgetter(field)(view)
        if isinstance(value, str):
            value = bool(value)
        elif isinstance(value, Sequence):
            value = len(value)
        elif field == _WITH_FRACTION:
            value = float(value)
        samples = [] if value is None else [("", value)]
        yield Family(figure.kind, PREFIX + figure.metric, figure.help, samples)


def _kube_proxy_families(view: StatusFacts) -> Iterator[Family]:
    """Yield kube-proxy's metrics, so that its alerts and dashboards keep working.

    kube-proxy has labelled them by IP family since 1.34, because it has one loop per family. A
    round of this proxy covers both families, which makes no difference to queries with sum or max.

    Source: kubernetes/kubernetes pkg/proxy/metrics/metrics.go.
    """
    sync = view.sync
    gauges = {
        "last_timestamp_seconds": ("When all changes were last applied", sync.last_done),
        "last_queued_timestamp_seconds": ("When the last change was received", sync.last_queued),
        "service_changes_pending": (
            "Changes of Services not applied yet",
            sync.service_changes_pending,
        ),
        "endpoint_changes_pending": (
            "Changes of endpoints not applied yet",
            sync.endpoint_changes_pending,
        ),
    }
    counters = {
        "service_changes": ("Changes of Services that were received", sync.service_changes),
        "endpoint_changes": ("Changes of endpoints that were received", sync.endpoint_changes),
    }
    if failed := _FAILURES.get(view.steering.name):
        counters[failed] = ("Times that the kernel refused what was to be steered", sync.failures)
    if view.steering.name == "iptables":
        text = "Of these, times that only what had changed was to be written"
        counters["iptables_partial_restore_failures"] = (text, sync.partial_failures)
    for make, plain in ((gauge, gauges), (counter, counters)):
        for name, (text, value) in plain.items():
            yield make(_KUBE_PROXY + name, text, [("", value)])
    without = Counter(
        _POLICIES[port.plan.scope]
        for port in view.ports
        if port.plan.cause is not None and port.plan.cause.code is CauseCode.NOT_LOCAL
    )
    yield gauge(
        f"{_KUBE_PROXY}no_local_endpoints_total",
        "Service ports with the traffic policy Local that only other nodes have endpoints for",
        [
            (f'{{traffic_policy="{policy}"}}', without[policy])
            for policy in ("internal", "external")
        ],
    )


def _health_check_families(view: StatusFacts) -> Iterator[Family]:
    checks = {
        labels_text(("namespace", "service"), health.key): health for health in view.health_checks
    }
    yield gauge(
        f"{PREFIX}health_check_local_endpoints",
        "Ready endpoints on this node, as the Service's health check node port returns them",
        [(labels, health.local_endpoints) for labels, health in checks.items()],
    )
    yield gauge(
        f"{PREFIX}health_check_problem",
        "1 where a health check node port does not answer, or not everywhere",
        [(labels, bool(health.problem)) for labels, health in checks.items()],
    )


def _problems(view: StatusFacts) -> Family:
    present = codes_of_node(view)
    return gauge(
        f"{PREFIX}node_problem",
        "1 while this cause concerns the whole node",
        [(labels_text(("reason",), (code,)), code in present) for code in NODE_CODES],
    )


def _worker_families(view: StatusFacts) -> Iterator[Family]:
    """Yield the metrics of each worker process, if there are any workers."""
    if not view.workers:
        return
    workers = {f'{{worker="{worker.index}"}}': worker for worker in view.workers}
    yield gauge(
        f"{PREFIX}worker_up",
        "1 while this worker process runs",
        [(labels, worker.pid != 0) for labels, worker in workers.items()],
    )
    for name, figure in figures_of(WorkerFacts).items():
        samples = [(labels, getattr(worker, name)) for labels, worker in workers.items()]
        yield Family(figure.kind, PREFIX + figure.metric, figure.help, samples)
    restarts = {}
    for labels, worker in workers.items():
        restarts[f'{labels[:-1]},cause="ended"}}'] = worker.restarts - worker.hung
        restarts[f'{labels[:-1]},cause="hung"}}'] = worker.hung
    yield counter(
        f"{PREFIX}worker_restarts",
        "Restarts of this worker process, because it ended or because it hung and was killed",
        restarts.items(),
    )
    yield histogram(
        f"{PREFIX}worker_loop_iteration_duration_seconds",
        "How long one iteration of a worker's event loop took; other events wait as long",
        [
            Buckets(
                labels,
                [bound for bound, _ in worker.iterations if bound is not None],
                [count for _, count in worker.iterations],
                worker.iterations_s,
            )
            for labels, worker in workers.items()
            if worker.iterations
        ],
    )
