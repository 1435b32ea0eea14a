"""Defines the options on which a plan depends; the agent's options extend them."""

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
    """Serve only Services with this ``service-proxy-name``; None for Services without the label."""
    node_addresses: tuple[str, ...] = ()
    """This node's own addresses, best first; if empty, the kernel is asked."""
    node_port_networks: tuple[str, ...] = ()
    """This node's addresses in these networks serve node ports; may contain ``primary``,
    ``localhost`` and ``all``; empty for all addresses."""
    external_ip_networks: tuple[str, ...] = ()
    """External IPs in these networks are served; empty to serve no external IP (CVE-2020-8554)."""
    cluster_networks: tuple[str, ...] = ()
    """The networks of this cluster's pods; empty if unknown."""
    only_own_pods: bool = False
    """Whether only this node's pods count as inside, if its Node object contains their networks."""
    allow_loopback_endpoints: bool = False
    """Whether to accept endpoints on 127.0.0.0/8 and ::1, which is unsafe on nodes
    (CVE-2021-25737)."""
    allow_node_endpoints: bool = True
    """Whether to accept any endpoint on this node's own addresses; otherwise, only its pods and API
    servers are accepted."""
    path: DataPath = DataPath.USERSPACE
    """The path of Services without the annotation ``path``."""
    allowed_paths: tuple[DataPath, ...] = tuple(DataPath)
    """The paths that annotations may choose."""
    port_ranges: Literal["cluster-ip", "all", "none"] = "cluster-ip"
    """The addresses for which annotations may request port ranges."""
