"""Runs cluster DNS: CoreDNS next to the API server, reached through the Service kube-dns.

The Service has no selector, and its EndpointSlices are written by hand, so the proxy under test
relays every DNS query that a pod sends over UDP.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..objects import Object, made
from .families import Families
from .node import CLUSTER_DOMAIN

NAMESPACE = "kube-system"
PORT = 53
_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def corefile(kubeconfig: Path, families: Families) -> str:
    """Return the configuration of CoreDNS."""
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


def objects(families: Families) -> Iterator[Object]:
    ips = [str(family.dns) for family in families]
    labels = {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"}
    ports = [{"name": name, "protocol": protocol, "port": PORT} for name, protocol in _PORTS]
    spec = {
        "ipFamilyPolicy": "PreferDualStack",
        "clusterIP": ips[0],
        "clusterIPs": ips,
        "ports": ports,
    }
    yield made("Service", "kube-dns", spec, namespace=NAMESPACE, labels=labels)
    for family in families:
        name = f"kube-dns-{family.name.lower()}"
        labels = {"kubernetes.io/service-name": "kube-dns"}
        version = "discovery.k8s.io/v1"
        yield {
            **made("EndpointSlice", name, version=version, namespace=NAMESPACE, labels=labels),
            "addressType": family.name,
            "endpoints": [{"addresses": [str(family.world)], "conditions": {"ready": True}}],
            "ports": ports,
        }
