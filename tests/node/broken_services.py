"""Twenty broken Services, one mistake each, and what a user should be told about it.

    Case ──▶ objects for manifests or an API server ──▶ client ──▶ page, JSON, explain, metric

A case has either pods, from which the control plane makes the slices, or slices of its own. Where
there is no control plane, `slices_of` writes what it would write.

The demo has twelve of these mistakes in a list of its own (`cli.demo_broken`): what it writes is a
text for people to correct, with addresses of its sandbox, and has neither pods nor sentences.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Client
from tests.node.testbed import Testbed
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import say

NAMESPACE, ELSEWHERE = "broken", "brokn"
NODE = "node-1"
REFUSED, RESETTING, CLOSING, SILENT, SERVING = 8080, 9000, 9001, 9002, 80
"""Ports of the endpoint "pod"; REFUSED is one without a listener."""
NONEXISTENT = "10.244.0.77"

Object = dict[str, Any]


class Shown(enum.Enum):
    """Where a cause belongs."""

    PORT = "the Service port"
    IGNORED = "what isn't served"
    NODE = "the node"


@dataclass(frozen=True)
class Pod:
    """A pod as the API has it; its address is that of the sandbox's pod, or NONEXISTENT."""

    port: int = SERVING
    port_name: str = ""
    labels: Mapping[str, str] | None = None
    """None: those that the Service selects."""
    ready: bool = True
    node: str = NODE
    exists: bool = True


@dataclass(frozen=True)
class Case:
    """One broken Service."""

    name: str
    code: CauseCode
    sentence: str
    """With ``{ip}`` for the endpoint's address."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the Service's spec."""
    labels: Mapping[str, str] = field(default_factory=dict)
    ingress: str = ""
    """A load balancer's address, in its status."""
    port: Mapping[str, Any] = field(default_factory=lambda: {"port": 80})
    pod: Pod | None = None
    slice_namespace: str = NAMESPACE
    slice_owner: str = ""
    """The Service that a hand-written slice names; empty: no such slice."""
    shown: Shown = Shown.PORT
    dialled: str = ""
    """The address at which clients dial; empty: the cluster IP, ``none``: they need not dial."""
    dials: int = 1
    client: str = "pod"
    needs: str = ""
    """The case that must exist before this one."""
    is_problem: bool = True
    """Whether it is counted as a problem."""

    @property
    def has_endpoints(self) -> bool:
        """Whether its Service port has endpoints, usable or not."""
        return (
            self.pod is not None
            and self.pod.labels is None
            and self.pod.port_name == self.port.get("name", "")
        )


_RANGES = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.128/25"]}
_NAMED = {"name": "http", "port": 80, "targetPort": "http"}

CASES = (
    Case(
        "labels",
        CauseCode.SLICE_EMPTY,
        "its EndpointSlice is empty: no pod with an address was found for selector app=labels",
        pod=Pod(labels={"app": "label"}),
    ),
    Case(
        "readiness",
        CauseCode.NOT_READY,
        "its only endpoint is not ready",
        pod=Pod(ready=False),
    ),
    Case(
        "port-name",
        CauseCode.PORT_NAME_MISSING,
        'its endpoints have no port named "http"',
        port=_NAMED,
        pod=Pod(port_name="web"),
    ),
    Case(
        "wrong-namespace",
        CauseCode.SLICE_ELSEWHERE,
        "EndpointSlice brokn/wrong-namespace-1 names this Service, from another namespace",
        slice_namespace=ELSEWHERE,
        slice_owner="wrong-namespace",
    ),
    Case(
        "wrong-name",
        CauseCode.SLICE_ORPHANED,
        'EndpointSlice broken/wrong-name-1 names "wrongname", which does not exist '
        '(did you mean "wrong-name"?)',
        slice_owner="wrongname",
    ),
    Case(
        "refused",
        CauseCode.ENDPOINT_REFUSES,
        say(refuses("{ip}:8080")),
        pod=Pod(REFUSED),
    ),
    Case(
        "silent",
        CauseCode.ENDPOINT_SILENT,
        "{ip}:9002 does not answer: packets are dropped, its program hangs, or its host is gone",
        pod=Pod(SILENT),
    ),
    Case(
        "nonexistent",
        CauseCode.ENDPOINT_UNREACHABLE,
        # The sandbox's node has such a route to the network of its pods.
        f"{NONEXISTENT}:80 is unreachable: a route of this node says so (type unreachable)",
        pod=Pod(exists=False),
    ),
    Case(
        "resetting",
        CauseCode.ENDPOINT_RESETS,
        "{ip}:9000 accepts connections and ends them without answering",
        pod=Pod(RESETTING),
        dials=3,
    ),
    Case(
        "half-alive",
        CauseCode.ENDPOINT_RESETS,
        "{ip}:9001 accepts connections and ends them without answering",
        pod=Pod(CLOSING),
        dials=3,
    ),
    Case(
        "local",
        CauseCode.NOT_LOCAL,
        "its only endpoint is on node node-2, and the traffic policy is Local",
        spec={"internalTrafficPolicy": "Local"},
        pod=Pod(node="node-2"),
    ),
    Case(
        "source-range",
        CauseCode.SOURCE_DENIED,
        "clients outside 192.0.2.128/25 are dropped",
        spec=_RANGES,
        ingress="203.0.113.10",
        pod=Pod(),
        dialled="203.0.113.10",
        client="laptop",
        is_problem=False,
    ),
    Case(
        "external-ip",
        CauseCode.EXTERNAL_IP_OFF,
        "external IP 203.0.113.7 is not served",
        spec={"externalIPs": ["203.0.113.7"]},
        pod=Pod(),
        dialled="none",
    ),
    Case(
        "taken",
        CauseCode.ADDRESS_TAKEN,
        "load balancer IP 203.0.113.10 is not served: it is already held by broken/source-range",
        spec={"type": "LoadBalancer"},
        ingress="203.0.113.10",
        needs="source-range",
        pod=Pod(),
        dialled="none",
    ),
    Case(
        "headless",
        CauseCode.NOT_OURS,
        "it is headless (clusterIP: None): clients reach its endpoints directly",
        spec={"clusterIP": "None"},
        pod=Pod(),
        shown=Shown.IGNORED,
        dialled="none",
        is_problem=False,
    ),
    Case(
        "external-name",
        CauseCode.NOT_OURS,
        "type ExternalName is served by DNS alone",
        spec={"type": "ExternalName", "externalName": "shop.example"},
        shown=Shown.IGNORED,
        dialled="none",
        is_problem=False,
    ),
    Case(
        "sctp",
        CauseCode.NOT_OURS,
        "protocol SCTP is not supported (TCP and UDP are)",
        port={"port": 80, "protocol": "SCTP"},
        pod=Pod(),
        shown=Shown.IGNORED,
        dialled="none",
        is_problem=False,
    ),
    Case(
        "foreign-proxy",
        CauseCode.NOT_OURS,
        "its label assigns it to the service proxy 'cilium'",
        labels={"service.kubernetes.io/service-proxy-name": "cilium"},
        pod=Pod(),
        shown=Shown.IGNORED,
        dialled="none",
        is_problem=False,
    ),
)
"""The other two are of the node: a firewall, and a source that is away."""


def cluster_ip(case: Case) -> str:
    """Return the ClusterIP of a case; empty where its Service has none of its own."""
    if case.spec.get("clusterIP") == "None" or case.spec.get("type") == "ExternalName":
        return ""
    return f"10.96.2.{CASES.index(case) + 1}"


def service_of(case: Case, *, ip: str = "") -> Object:
    """Return the Service.

    Args:
        ip: Its ClusterIP; empty: that of the case, which is one of ``CASES``.
    """
    ip = ip or cluster_ip(case)
    selector = {} if case.slice_owner or not case.pod else {"selector": {"app": case.name}}
    made: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": case.name, "labels": dict(case.labels)},
        "spec": {
            **({"clusterIP": ip} if ip else {}),
            **selector,
            "ports": [{"targetPort": case.pod.port if case.pod else SERVING, **case.port}],
            **case.spec,
        },
    }
    if case.ingress:
        made["status"] = {"loadBalancer": {"ingress": [{"ip": case.ingress}]}}
    return made


def pod_of(case: Case, ip: str) -> Object | None:
    """Return the pod of a case, whose address is ``ip`` if it exists."""
    if case.pod is None:
        return None
    port = {"containerPort": case.pod.port, "protocol": case.port.get("protocol", "TCP")}
    labels = {"app": case.name} if case.pod.labels is None else dict(case.pod.labels)
    address = ip if case.pod.exists else NONEXISTENT
    ready = {"type": "Ready", "status": str(case.pod.ready)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": NAMESPACE, "name": case.name, "labels": labels},
        "spec": {
            "nodeName": case.pod.node,
            "containers": [
                {
                    "name": "main",
                    "image": "example.com/main",
                    "ports": [
                        {**port, **({"name": case.pod.port_name} if case.pod.port_name else {})}
                    ],
                }
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [ready],
        },
    }


def ask(agent: Agent, client: Client, case: Case) -> None:
    """Let a client dial once the Service is in force; return when it has noticed the mistake."""
    if case.dialled == "none":
        return

    def is_in_force() -> bool:
        status = agent.status()
        ports = [p for p in status["ports"] if p["service"] == case.name]
        is_planned = any(bool(port["endpoints"]) == case.has_endpoints for port in ports)
        # The plan is shown a moment before the rules are in the kernel.
        return is_planned and not status["sync"]["waiting_since"]

    wait_for("the Service", is_in_force)
    for _ in range(case.dials):
        with client.tcp() as sock, contextlib.suppress(OSError):
            # A client that is dropped would wait for minutes.
            sock.settimeout(5.0)
            sock.connect((case.dialled or cluster_ip(case), 80))
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            while sock.recv(4096):
                pass


@contextlib.contextmanager
def firewall(testbed: Testbed) -> Iterator[None]:
    """Drop what comes in on the node, as a careless firewall does, until the end of the block."""
    chain = "{ type filter hook input priority 0; policy drop; }"
    testbed.shell(
        f"nft add table ip filter; nft add chain ip filter INPUT '{chain}'; "
        "nft add rule ip filter INPUT iifname lo accept"
    )
    try:
        yield
    finally:
        testbed.shell("nft delete table ip filter")


def slices_of(case: Case, ip: str, *, has_controllers: bool = False) -> Iterator[Object]:
    """Yield the hand-written slice; without a control plane also the one that it would write."""
    if case.slice_owner:
        endpoint = {"addresses": [ip], "nodeName": NODE}
        yield _slice(case.slice_namespace, case.name, case.slice_owner, {"port": 80}, [endpoint])
    elif case.pod and not has_controllers:
        address = ip if case.pod.exists else NONEXISTENT
        endpoint = {
            "addresses": [address],
            "nodeName": case.pod.node,
            "conditions": {"ready": case.pod.ready},
        }
        port = {
            "port": case.pod.port,
            "protocol": case.port.get("protocol", "TCP"),
            "name": case.pod.port_name,
        }
        endpoints = [endpoint] if case.pod.labels is None else []
        yield _slice(NAMESPACE, case.name, case.name, port, endpoints)


def _slice(
    namespace: str, name: str, owner: str, port: Object, endpoints: Sequence[Object]
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": namespace,
            "name": f"{name}-1",
            "labels": {"kubernetes.io/service-name": owner},
        },
        "addressType": "IPv4",
        "ports": [port],
        "endpoints": endpoints,
    }
