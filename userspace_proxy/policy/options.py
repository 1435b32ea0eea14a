"""The options by which a proxy selects and serves Services; the agent's options extend them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..model import DataPath


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Options on which a plan depends; the defaults are for embedding."""

    node_name: str = ""
    """Name of this node in Kubernetes; empty without a cluster."""
    proxy_name: str | None = None
    """Serve only Services with this ``service-proxy-name``; None: only Services without one."""
    node_addresses: tuple[str, ...] = ()
    """This node's own addresses, best first; if empty, the kernel is asked."""
    node_port_networks: tuple[str, ...] = ()
    """This node's addresses in these networks serve node ports; also ``primary``, ``localhost`` and
    ``all``; empty for all addresses."""
    external_ip_networks: tuple[str, ...] = ()
    """External IPs in these networks are served; empty if none are (CVE-2020-8554)."""
    cluster_networks: tuple[str, ...] = ()
    """The networks of this cluster's pods; empty if unknown."""
    only_own_pods: bool = False
    """Only this node's pods count as inside, if its Node object contains their networks."""
    allow_loopback_endpoints: bool = False
    """Accept endpoints on 127.0.0.0/8 and ::1, which is unsafe on nodes (CVE-2021-25737)."""
    allow_node_endpoints: bool = True
    """Accept any endpoint on this node's own addresses; if False, only its pods and API servers."""
    path: DataPath = DataPath.USERSPACE
    """The path of Services without the annotation ``path``."""
    allowed_paths: tuple[DataPath, ...] = tuple(DataPath)
    """The paths that annotations may choose."""
    port_ranges: Literal["cluster-ip", "all", "none"] = "cluster-ip"
    """The addresses at which annotations may request port ranges."""
