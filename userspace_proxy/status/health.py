"""Decides whether this proxy is healthy, as kube-proxy's ``/healthz`` and ``/livez`` do.

    is ready ───────────┐
    changes in time ────┤
    node stays ─────────┼─▶ /healthz   load balancers and readiness: send clients here?
    conntrack has room ─┘
    the loop iterates ────▶ /livez     liveness: would a restart help?

Rule 1: ``/livez`` never requests a restart that can't help, because a restart breaks every
connection of the node. A proxy is alive while it waits for the API server, while the kernel rejects
its rules, and while its node is being deleted, but not while its sync loop is stuck.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from ..diagnosis.problems import late_s
from ..facts import StatusFacts

# The time after which the sync loop, which normally iterates every second, is considered stuck.
STUCK_S = 60.0

# Go's zero time, which kube-proxy shows before its first sync.
NEVER = "0001-01-01T00:00:00Z"
_FAMILIES = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True)
class HealthAnswer:
    """One answer to a probe."""

    status: int
    """The status code, 200 or 503."""
    body: bytes
    """The body, as JSON."""


def answer_healthz(view: StatusFacts, now: float) -> HealthAnswer:
    """Report whether clients may be sent to this node.

    Args:
        view: The current state.
        now: Unix time, as in all functions of this module.

    Source: kubernetes/kubernetes pkg/proxy/healthcheck/proxy_health.go of 1.36. Before the first
    sync, kube-proxy answers 200, but this proxy answers 503, so that load balancers wait.
    """
    is_healthy = (
        view.is_ready
        and view.node_is_eligible
        and is_working(view, now)
        # Probes may still get through while the kernel drops most new connections.
        and not view.tracking.is_dropping
    )
    return _answer(view, now, is_healthy=is_healthy, extra={"nodeEligible": view.node_is_eligible})


def answer_livez(view: StatusFacts, now: float) -> HealthAnswer:
    """Report whether the sync loop of this process iterates.

    Source: as for :func:`answer_healthz`, and KEP-3836. kube-proxy's ``/livez`` also fails if a
    change is late, but restarting kube-proxy doesn't break connections.
    """
    return _answer(view, now, is_healthy=view.sync.turned_s_ago < STUCK_S, extra={})


def is_working(view: StatusFacts, now: float) -> bool:
    """Return whether changes take effect in time, regardless of the Node's state.

    Source: kube-proxy's ProxyHealth.Healthy, which its health check node ports also report.
    """
    return late_s(view.sync, now) == 0


def _answer(
    view: StatusFacts, now: float, *, is_healthy: bool, extra: dict[str, object]
) -> HealthAnswer:
    is_in_time = is_working(view, now)
    last_done = view.sync.last_done
    body: dict[str, object] = {
        # While it is healthy, kube-proxy shows a recent time even without changes, because load
        # balancers came to depend on that in old versions.
        "lastUpdated": go_time(now if is_healthy else last_done),
        "currentTime": go_time(now),
        **extra,
        # As in kube-proxy, this covers only the sync rounds: a node may be healthy although it
        # isn't eligible.
        "healthy": is_in_time,
    }
    if last_done:
        # A sync round covers both families, so they have the same state.
        of_family = {"lastUpdated": go_time(last_done), "healthy": is_in_time}
        body["status"] = dict.fromkeys(_FAMILIES, of_family)
    return HealthAnswer(200 if is_healthy else 503, json.dumps(body).encode())


def go_time(unix: float) -> str:
    """Return a Unix time in UTC as Go writes it in JSON; ``NEVER`` for 0 and invalid times."""
    try:
        moment = datetime.fromtimestamp(unix, UTC) if unix else None
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None:
        return NEVER
    return f"{moment:%Y-%m-%dT%H:%M:%S}{f'.{moment:%f}'.rstrip('0').rstrip('.')}Z"
