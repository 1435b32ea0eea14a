"""Cluster DNS: CoreDNS beside the API server, reached by pods through the Service kube-dns.

The Service has no selector and its EndpointSlices are written by hand, so every name that a pod
looks up takes the UDP path of the proxy under test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .families import Families, Family
from .node import CLUSTER_DOMAIN

NAMESPACE = "kube-system"
PORT = 53
_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def corefile(kubeconfig: Path, families: Families) -> str:
    """Return CoreDNS' configuration."""
    addresses = " ".join(str(family.world) for family in families)
    return f"""\
.:{PORT} {{
    bind {addresses}
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


def manifests(families: Families) -> str:
    ips = [str(family.dns) for family in families]
    labels = {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "ipFamilyPolicy": "PreferDualStack",
            "clusterIP": ips[0],
            "clusterIPs": ips,
            "ports": [
                {"name": name, "protocol": protocol, "port": PORT} for name, protocol in _PORTS
            ],
        },
    }
    items = [service, *map(_slice, families)]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _slice(family: Family) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"kube-dns-{family.name.lower()}",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": family.name,
        "endpoints": [{"addresses": [str(family.world)], "conditions": {"ready": True}}],
        "ports": [{"name": name, "protocol": protocol, "port": PORT} for name, protocol in _PORTS],
    }
