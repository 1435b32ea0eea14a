"""The demo's broken Services, with one mistake each, for ``explain`` and the page.

The Services are YAML text, for users to fix; the tests of causes use objects
(``tests/node/broken_services.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from userspace_proxy.causes.cause import CauseCode

NAMESPACE = "broken"
REFUSED, RESETTING, SILENT = 8080, 9000, 9001
"""Ports of the pod ``broken``."""
ELSEWHERE = "10.244.1.2"
"""The address of a pod on another node."""

_HEAD = """\
# Each of these Services has one mistake. Find it: userspace-proxy explain broken/NAME
# Correct it here and save: the proxy follows within a second.
"""

_SERVICE = """\
---
apiVersion: v1
kind: Service
metadata: {{namespace: broken, name: {name}}}
spec:
  clusterIP: {cluster_ip}
  selector: {{app: {name}}}{spec}
  ports: [{{{port}}}]{status}
"""

_SLICE = """\
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  namespace: {namespace}
  name: {name}-1
  labels: {{kubernetes.io/service-name: {owner}}}
addressType: IPv4
ports: [{{{port}}}]
endpoints: [{endpoint}]
"""

_GOOD = "{{addresses: [{web}], nodeName: node-1}}"
_BROKEN = "{{addresses: [{broken}], nodeName: node-1}}"


@dataclass(frozen=True, slots=True)
class BrokenService:
    """One Service with one mistake."""

    name: str
    code: CauseCode
    """The cause that the proxy should report."""
    cluster_ip: str
    spec: str = ""
    """More lines of the spec, each with a leading newline."""
    status: str = ""
    port: str = "port: 80"
    slice_namespace: str = NAMESPACE
    slice_owner: str = ""
    """The Service that the slice names; empty for this Service."""
    slice_port: str = "port: 8080"
    endpoint: str = _GOOD
    dialled: str = ""
    """The address at which clients experience the mistake; empty for the cluster IP."""


_BALANCED = "\n  type: LoadBalancer\n  loadBalancerSourceRanges: [198.51.100.0/24]"
_INGRESS = "\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.10}]}}"
_ON_NODE_2 = f"{{{{addresses: [{ELSEWHERE}], nodeName: node-2}}}}"

BROKEN_SERVICES = (
    BrokenService("labels", CauseCode.SLICE_EMPTY, "10.96.1.1", endpoint=""),
    BrokenService(
        "not-ready",
        CauseCode.NOT_READY,
        "10.96.1.2",
        endpoint=_GOOD.replace("}}", ", conditions: {{ready: false}}}}"),
    ),
    BrokenService(
        "port-name",
        CauseCode.PORT_NAME_MISSING,
        "10.96.1.3",
        port="name: http, port: 80",
        slice_port="name: web, port: 8080",
    ),
    BrokenService("elsewhere", CauseCode.SLICE_ELSEWHERE, "10.96.1.4", slice_namespace="brokn"),
    BrokenService("misspelt", CauseCode.SLICE_ORPHANED, "10.96.1.5", slice_owner="mispelt"),
    BrokenService(
        "refused",
        CauseCode.ENDPOINT_REFUSES,
        "10.96.1.6",
        slice_port=f"port: {REFUSED}",
        endpoint=_BROKEN,
    ),
    BrokenService(
        "silent",
        CauseCode.ENDPOINT_SILENT,
        "10.96.1.7",
        slice_port=f"port: {SILENT}",
        endpoint=_BROKEN,
    ),
    BrokenService(
        "nonexistent",
        CauseCode.ENDPOINT_UNREACHABLE,
        "10.96.1.8",
        endpoint="{{addresses: [10.244.9.9], nodeName: node-1}}",
    ),
    BrokenService(
        "resetting",
        CauseCode.ENDPOINT_RESETS,
        "10.96.1.9",
        slice_port=f"port: {RESETTING}",
        endpoint=_BROKEN,
    ),
    BrokenService(
        "local",
        CauseCode.NOT_LOCAL,
        "10.96.1.10",
        spec="\n  internalTrafficPolicy: Local",
        endpoint=_ON_NODE_2,
    ),
    BrokenService(
        "external-ip",
        CauseCode.EXTERNAL_IP_OFF,
        "10.96.1.11",
        spec="\n  externalIPs: [203.0.113.7]",
    ),
    BrokenService(
        "source-range",
        CauseCode.SOURCE_DENIED,
        "10.96.1.12",
        spec=_BALANCED,
        status=_INGRESS,
        dialled="203.0.113.10",
    ),
)


def broken_manifests_for(pods: Mapping[str, str]) -> str:
    """Return the manifests as YAML, given the addresses of the pods web-1 and broken."""
    parts = [_HEAD]
    for service in BROKEN_SERVICES:
        parts.append(
            _SERVICE.format(
                name=service.name,
                cluster_ip=service.cluster_ip,
                spec=service.spec,
                port=service.port,
                status=service.status,
            )
        )
        parts.append(
            _SLICE.format(
                namespace=service.slice_namespace,
                name=service.name,
                owner=service.slice_owner or service.name,
                port=service.slice_port,
                endpoint=service.endpoint.format(web=pods["web-1"], broken=pods["broken"]),
            )
        )
    return "".join(parts)


def broken_traffic() -> tuple[str, ...]:
    """Return the targets of ``sandbox.traffic`` for the broken Services."""
    return tuple(f"http://{s.dialled or s.cluster_ip}/=0.5" for s in BROKEN_SERVICES)
