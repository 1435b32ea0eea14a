"""Broken Services, one mistake each, that a kernel or a client shows, or with a place of their own.

    Case ──▶ manifests ──▶ client ──▶ page, JSON, explain, metric

All other causes follow from objects alone: `tests/unit/causes`.

The demo has twelve of these mistakes in a list of its own (`cli.demo_broken`): what it writes is a
text for people to correct, with addresses of its sandbox, and has neither pods nor sentences.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Client
from tests.node.testbed import Testbed
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import say

NAMESPACE = "broken"
NODE = "node-1"
REFUSED, RESETTING, SILENT, SERVING = 8080, 9000, 9002, 80
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
    """A pod; its address is that of the sandbox's pod, or NONEXISTENT."""

    port: int = SERVING
    is_selected: bool = True
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
    ingress: str = ""
    """A load balancer's address, in its status."""
    pod: Pod | None = None
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
        return self.pod is not None and self.pod.is_selected


_RANGES = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.128/25"]}

CASES = (
    Case(
        "labels",
        CauseCode.SLICE_EMPTY,
        "its EndpointSlice is empty: no pod with an address was found for selector app=labels",
        pod=Pod(is_selected=False),
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
        "external-name",
        CauseCode.NOT_OURS,
        "type ExternalName is served by DNS alone",
        spec={"type": "ExternalName", "externalName": "shop.example"},
        shown=Shown.IGNORED,
        dialled="none",
        is_problem=False,
    ),
)
"""The other two are of the node: a firewall, and a source that is away."""


def cluster_ip(case: Case) -> str:
    """Return the ClusterIP of a case; empty for type ExternalName."""
    if case.spec.get("type") == "ExternalName":
        return ""
    return f"10.96.2.{CASES.index(case) + 1}"


def service_of(case: Case, *, ip: str = "") -> Object:
    """Return the Service.

    Args:
        ip: Its ClusterIP; empty: that of the case, which is one of ``CASES``.
    """
    ip = ip or cluster_ip(case)
    selector = {"selector": {"app": case.name}} if case.pod else {}
    made: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": case.name},
        "spec": {
            **({"clusterIP": ip} if ip else {}),
            **selector,
            "ports": [{"targetPort": case.pod.port if case.pod else SERVING, "port": 80}],
            **case.spec,
        },
    }
    if case.ingress:
        made["status"] = {"loadBalancer": {"ingress": [{"ip": case.ingress}]}}
    return made


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


def slices_of(case: Case, ip: str) -> Iterator[Object]:
    """Yield the slice that a control plane writes for a case."""
    if case.pod:
        address = ip if case.pod.exists else NONEXISTENT
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": NAMESPACE,
                "name": f"{case.name}-1",
                "labels": {"kubernetes.io/service-name": case.name},
            },
            "addressType": "IPv4",
            "ports": [{"port": case.pod.port}],
            "endpoints": [{"addresses": [address], "nodeName": NODE}] * case.pod.is_selected,
        }
