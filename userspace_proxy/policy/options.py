"""The options of one proxy that decide what it serves, and how; the agent's have more."""

from __future__ import annotations

from dataclasses import dataclass

from ..model import DataPath


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """The options on which a plan depends; the defaults are for embedding."""

    node_name: str = ""
    """Name of this node in Kubernetes; empty without a cluster."""
    proxy_name: str | None = None
    """Serve only Services with this ``service-proxy-name`` label; None: those without."""
    node_addresses: tuple[str, ...] = ()
    """This node's own addresses, best first; empty: the kernel's choice."""
    node_port_networks: tuple[str, ...] = ()
    """This node's addresses in these networks serve node ports; also ``primary``, ``localhost``
    and ``all``; empty: all do."""
    external_ip_networks: tuple[str, ...] = ()
    """External IPs in these networks are served; empty: none are (CVE-2020-8554)."""
    cluster_networks: tuple[str, ...] = ()
    """The networks of this cluster's pods; empty: unknown."""
    only_own_pods: bool = False
    """Only this node's pods are inside, if its Node object contains their networks."""
    allow_loopback_endpoints: bool = False
    """Endpoints may be on 127.0.0.0/8 and ::1; they mustn't on nodes (CVE-2021-25737)."""
    allow_node_endpoints: bool = True
    """Endpoints may be at this node's own addresses in any case; False: only its pods, and API
    servers."""
    path: DataPath = DataPath.USERSPACE
    """How the bytes of Services travel whose annotations don't say."""
    allowed_paths: tuple[DataPath, ...] = tuple(DataPath)
    """Those that annotations may choose."""
