"""Cluster DNS: CoreDNS beside the API server, reached by pods through the Service kube-dns.

The Service has no selector and its EndpointSlice is written by hand, so every name that a pod
looks up takes the UDP path of the proxy under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .node import CLUSTER_DNS, CLUSTER_DOMAIN
from .world import WORLD_IP

NAMESPACE = "kube-system"
PORT = 53
_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def corefile(kubeconfig: Path) -> str:
    """Return CoreDNS' configuration."""
    return f"""\
.:{PORT} {{
    bind {WORLD_IP}
    errors
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 5
    }}
    cache 5
    loadbalance
}}
"""


def manifests() -> str:
    """Return the Service and its slice."""
    labels = {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "clusterIP": CLUSTER_DNS,
            "ports": [
                {"name": name, "protocol": protocol, "port": PORT} for name, protocol in _PORTS
            ],
        },
    }
    endpoint_slice = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns-1",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(WORLD_IP)], "conditions": {"ready": True}}],
        "ports": [{"name": name, "protocol": protocol, "port": PORT} for name, protocol in _PORTS],
    }
    items: list[dict[str, Any]] = [service, endpoint_slice]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
