"""The options of one proxy; ``run`` fills them in from flags and files."""

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
"""Writes a text, and returns when it is written; may raise OSError."""


@dataclass(frozen=True, slots=True)
class Options(PolicyOptions):
    """The options of one proxy; the defaults are for embedding."""

    proxy_ports: tuple[int, int] = (17000, 29999)
    """First and last number of the proxy port range."""
    service_cidrs: tuple[str, ...] = ()
    """The ranges of cluster IPs, for steerings that route them."""
    preserves_client_address: bool = False
    """Endpoints see client addresses if replies return through this node; that takes NET_ADMIN,
    nftables and a steering other than ``none``."""
    is_own_namespace: bool = False
    """The network namespace was created for this proxy, so it may change all routes."""
    tuning: Tuning = field(default_factory=Tuning)
    workers: int | None = None
    """How many processes carry the traffic; None: the caller's event loop does."""
    socket_lb: Literal["off", "auto", "required"] = "off"
    """Translate connect() of this node's programs on the kernel path, where that works."""
    socket_lb_cgroup: str = ""
    """Of the programs in this folder of cgroup v2; empty: of all."""
    socket_lb_host_only: bool = False
    """Only of those in this network namespace."""
    dialer: Dialer | None = None
    """Reaches the endpoints of TCP in another way than by their addresses, without ``workers``."""
    second_port: Callable[[Frontend], int] | None = None
    """With steering ``none``: returns the port at which a frontend on loopback answers if it can't
    at its own. 0, None, and where it can't there either: any port of the range."""
    min_sync_period_s: float = 0.0
    """Seconds between the beginnings of two rounds."""
    health: ListenAt | None = None
    """The address of ``/healthz`` and ``/livez``; None: they aren't served."""
    ready_socket: str = ""
    """The Unix socket that answers whether this process serves; empty: none does."""
    admin: ListenAt | None = None
    """The address of the page, ``/metrics`` and the rest; None: they aren't served."""
    metrics_detail: Literal["node", "service", "endpoint"] = "service"
    """What ``/metrics`` has beside the sums of the node."""
    allow_endpoint_names: tuple[str, ...] = ()
    """Names, with all below them, that Services may have as endpoints: ``example.com``. Empty:
    none are looked up."""
    service_cluster_ip_range: tuple[str, ...] = ()
    """The networks of Services, to which such a name must not lead."""
    allow_wake: bool = False
    """Have workloads scaled from zero while clients of their Services wait."""
    dns: tuple[str, int] | None = None
    """The address at which names of Services are answered by DNS (port 0: any free one); None:
    nowhere."""
    dns_upstream: SocketAddress | None = None
    """The DNS server that is asked for other names; None: they are refused."""
    cluster_domain: str = CLUSTER_DOMAIN
    """The domain of Services' names."""
    state_dir: str = ""
    """The folder in which the last state is kept; empty: it isn't kept."""
    state_max_age_s: float = 86400.0
    """The last state isn't served if it is older than that, in seconds."""
    write_addresses: WriteText | None = None
    """Writes lines of JSON: where each Service is dialled, and each change; None: not wanted."""
    config: tuple[tuple[str, object, str], ...] = ()
    """Settings for ``/configz``: name, value, origin."""
    given: str = ""
    """Those that differ from the defaults, as they were given."""
    commit: str = ""
    """What this program was made of; empty if that is unknown."""
    hand_over: Callable[[socket.socket], object] | None = None
    """Called when another process is to succeed this one on the node, with the connection to it;
    doesn't return, and the workers continue to serve. None: they end with this process."""
    report_serving: Callable[[], object] | None = None
    """Called once this process serves a node that another one has handed over."""
    is_awaited: Callable[[], bool] = bool
    """Returns whether that one would take the node back if this one ended; ``bool()`` is False."""
    predecessor_drain_s: float = 0.0
    """How long connections of the last process's workers may go on."""
    dropped_log_lines: Callable[[], int] = int
    """Returns how many lines the log has dropped; ``int()`` is 0."""
