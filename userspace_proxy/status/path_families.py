"""Maps the paths of Service ports to metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..facts import PortFacts, TotalsFacts, figures_of
from ..model import DataPath
from .exposition import Family, counter, gauge

_PREFIX = "userspace_proxy_"
_CONNECTIONS = figures_of(TotalsFacts)["kernel_connections"]


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
            if port.path is not DataPath.USERSPACE
        ],
    )
    yield counter(
        f"{_PREFIX}kernel_path_connections",
        _CONNECTIONS.help,
        [
            (labels, port.kernel_connections)
            for labels, port in ports.items()
            # As other counters of a Service port: from its first client on.
            if port.kernel_connections
        ],
    )
