"""Defines the options of one proxy, which ``run`` sets from flags and files."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from ...dataplane import Dialer, Tuning
from ...model import Frontend, SocketAddress
from ...names import CLUSTER_DOMAIN
from ...policy import PolicyOptions
from ...status.listening import ListenAt

WriteText = Callable[[str], Awaitable[None]]
"""Writes a string, and returns once it is written; may raise OSError."""


@dataclass(frozen=True, slots=True)
class Options(PolicyOptions):
    """The options of one proxy; the defaults are for embedding."""

    proxy_ports: tuple[int, int] = (17000, 29999)
    """The first and last port of the proxy port range."""
    service_cidrs: tuple[str, ...] = ()
    """The ranges of cluster IPs, for steering mechanisms that route them."""
    preserves_client_address: bool = False
    """Whether endpoints see client addresses if replies return through this node; requires
    NET_ADMIN, nftables and a steering mode other than ``none``."""
    is_own_namespace: bool = False
    """Whether the network namespace was created for this proxy, which may change all routes."""
    tuning: Tuning = field(default_factory=Tuning)
    workers: int | None = None
    """The number of processes that carry the traffic; None if the caller's event loop does."""
    socket_lb: Literal["off", "auto", "required"] = "off"
    """Whether to translate connect() of this node's programs on the kernel path."""
    socket_lb_cgroup: str = ""
    """Translate only for programs in this cgroup v2 directory; empty: for all programs."""
    socket_lb_host_only: bool = False
    """Whether to translate only for programs in this network namespace."""
    dialer: Dialer | None = None
    """Dials TCP endpoints by other means than by address; only without ``workers``."""
    second_port: Callable[[Frontend], int] | None = None
    """With ``none`` steering: returns the port for a loopback frontend whose own port is in use.

    Without this function, or if it returns 0 or a port in use, any port of the range is taken."""
    min_sync_period_s: float = 0.0
    """The minimum number of seconds between the starts of two rounds."""
    health: ListenAt | None = None
    """The address of ``/healthz`` and ``/livez``; None if they aren't served."""
    ready_socket: str = ""
    """The Unix socket that answers whether this process serves; empty: no socket."""
    admin: ListenAt | None = None
    """The address of the page, ``/metrics`` and the JSON; None if they aren't served."""
    metrics_detail: Literal["node", "service", "endpoint"] = "service"
    """The objects for which ``/metrics`` shows figures, besides the node's sums."""
    allow_endpoint_names: tuple[str, ...] = ()
    """The domains of host names that Services may have as endpoints, such as ``example.com``;
    empty: no names are looked up."""
    service_cluster_ip_range: tuple[str, ...] = ()
    """The networks of Services, to which host names of endpoints must not resolve."""
    allow_wake: bool = False
    """Whether to scale workloads from zero while clients wait, and to zero once they are unused."""
    dns: tuple[str, int] | None = None
    """The address of the DNS server for Services' names (port 0: any free port); None: no server.
    """
    dns_upstream: SocketAddress | None = None
    """The DNS server for all other names; None if queries for them are refused."""
    cluster_domain: str = CLUSTER_DOMAIN
    """The domain of Services' names."""
    state_dir: str = ""
    """The folder for the saved state; empty if no state is saved."""
    state_max_age_s: float = 86400.0
    """The maximum age of a saved state that is served, in seconds."""
    write_addresses: WriteText | None = None
    """Writes lines of JSON with the Services' addresses, and each change; None to write nothing."""
    config: tuple[tuple[str, object, str], ...] = ()
    """The settings for ``/configz``: name, value, origin."""
    given: str = ""
    """The settings that differ from the defaults, as given by the user."""
    commit: str = ""
    """The commit that this program was built from; empty if unknown."""
    hand_over: Callable[[socket.socket], object] | None = None
    """Called to hand the node over to another process, with the connection to that process; doesn't
    return, or raises UserspaceProxyError. None: the workers exit with this process."""
    report_serving: Callable[[], object] | None = None
    """Called once this process serves a node that another process has handed over."""
    is_awaited: Callable[[], bool] = bool
    """Returns whether the other process would take the node back if this one exited."""
    previous_drain_s: float = 0.0
    """Seconds for which connections of the previous process's workers may continue."""
    dropped_log_lines: Callable[[], int] = int
    """Returns the number of dropped log lines; by default 0."""
