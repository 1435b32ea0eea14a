"""The options of one proxy; ``run`` fills them in from flags and files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..dataplane import Tuning
from ..status.listening import ListenAt


@dataclass(frozen=True, slots=True)
class Options:
    """The parts of a proxy that have a default for embedding.

    ``Proxy(steering="none")`` needs none of them.
    """

    node_name: str = ""
    """Name of this node in Kubernetes; empty when there is no cluster."""
    proxy_name: str | None = None
    """Serve only Services with this ``service-proxy-name`` label; None: those without."""
    proxy_ports: tuple[int, int] = (17000, 29999)
    """First and last number of the proxy port range."""
    service_cidrs: tuple[str, ...] = ()
    """The ranges that cluster IPs come from, for steerings that route them."""
    node_addresses: tuple[str, ...] = ()
    """This node's own addresses, best first; empty: the kernel's choice."""
    node_port_networks: tuple[str, ...] = ()
    """Whose addresses of this node answer at node ports; also ``primary``, ``localhost`` and
    ``all``; empty: all do."""
    external_ip_networks: tuple[str, ...] = ()
    """Which external IPs are served; empty: none (CVE-2020-8554)."""
    cluster_networks: tuple[str, ...] = ()
    """Where this cluster's pods are; empty: unknown."""
    preserves_client_address: bool = False
    """Endpoints see their clients' own addresses where answers come back by this node; it takes
    NET_ADMIN and nftables, and a steering other than ``none``."""
    only_own_pods: bool = False
    """The pods inside are this node's, where its Node object says which those are."""
    allow_loopback_endpoints: bool = False
    """Endpoints on 127.0.0.0/8 and ::1; refused on nodes (CVE-2021-25737)."""
    is_own_namespace: bool = False
    """The network namespace was made for this proxy: it may route as it likes."""
    tuning: Tuning = field(default_factory=Tuning)
    workers: int | None = None
    """Processes of their own that carry the traffic; None: the caller's event loop does."""
    min_sync_period_s: float = 0.0
    """Seconds between the beginnings of two rounds."""
    health: ListenAt | None = None
    """Where ``/healthz`` and ``/livez`` answer; None: nowhere."""
    admin: ListenAt | None = None
    """Where the page, ``/metrics`` and the rest answer; None: nowhere."""
    config: tuple[tuple[str, object, str], ...] = ()
    """Settings for ``/configz``: name, value, origin."""
    dropped_log_lines: Callable[[], int] = int
    """Returns how many lines the log has dropped; ``int()`` is 0."""
