"""Maps the paths of Service ports to metrics: those on the kernel path, and probes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..facts import PortFacts, ProbesFacts, StatusFacts
from ..model import Path
from .exposition import Family, counter, gauge

_PREFIX = "userspace_proxy_"
_CONNECTIONS = (
    "Connections (UDP: flows) that the kernel led straight to endpoints; their bytes and failures "
    "aren't known"
)


def path_families(ports: Mapping[str, PortFacts]) -> Iterator[Family]:
    """Return the metrics of Service ports that are on the kernel path, or have been.

    Args:
        ports: All Service ports, by their labels as text.
    """
    yield gauge(
        f"{_PREFIX}service_port_path",
        "1 for a Service port whose new connections don't pass through the proxy; "
        "kernel_path_connections counts them",
        [
            (f'{labels[:-1]},path="{port.path}"}}', 1.0)
            for labels, port in ports.items()
            if port.path is not Path.USERSPACE
        ],
    )
    yield counter(
        f"{_PREFIX}kernel_path_connections",
        _CONNECTIONS,
        [
            (labels, port.kernel_connections)
            for labels, port in ports.items()
            # As other counters of a Service port: from its first client on.
            if port.kernel_connections
        ],
    )


def node_path_families(view: StatusFacts) -> Iterator[Family]:
    """Return the metrics of paths whose number doesn't depend on the size of the cluster."""
    total = view.totals.kernel_connections
    samples = [] if total is None else [("", total)]
    yield counter(f"{_PREFIX}node_kernel_path_connections", _CONNECTIONS, samples)
    yield from _probe_families(view.probes)


def _probe_families(probes: ProbesFacts) -> Iterator[Family]:
    for name, text, value in (
        (
            "endpoints",
            "Endpoints that are probed, because a Service has the path auto",
            probes.endpoints,
        ),
        (
            "interval_seconds",
            "Measured average time between two probes of an endpoint that answers; 0 while unknown",
            probes.interval_s,
        ),
        (
            "budget",
            "Probes that may begin in a second; 0 while nothing is probed",
            probes.per_second,
        ),
    ):
        yield gauge(f"{_PREFIX}path_probe_{name}", text, [("", value)])
    text = "Probes of endpoints of Services with the path auto"
    yield counter(f"{_PREFIX}path_probes", text, [("", probes.sent)])
    text = "Of these, those without an answer"
    yield counter(f"{_PREFIX}path_probe_failures", text, [("", probes.failed)])
