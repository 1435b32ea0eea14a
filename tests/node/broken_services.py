"""Broken Services, each with one mistake, its expected cause, and where users see the cause.

    Case ──▶ manifests ──▶ client ──▶ page, JSON, explain, metric

``wrong_services`` has mistakes that only clients detect. Causes that depend only on objects are
tested by `tests/unit/causes`.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.waiting import wait_for
from tests.node.manifests import slice_of
from tests.node.testbed import Testbed
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import say

NAMESPACE = "broken"
NODE = "node-1"
REFUSED, SERVING = 8080, 80
"""Ports of the endpoint "pod"; no server listens on REFUSED."""

Object = dict[str, Any]


class Shown(enum.Enum):
    """The output that shows a cause."""

    PORT = "the Service port"
    IGNORED = "what isn't served"
    NODE = "the node"


@dataclass(frozen=True)
class Case:
    """A broken Service, and its cause."""

    name: str
    code: CauseCode
    sentence: str
    """The cause's sentence, with ``{ip}`` for the endpoint's address."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Additional fields of the Service's spec."""
    ingress: str = ""
    """A load balancer's address in the Service's status, which a client outside dials."""
    port: int = SERVING
    """The port of the Service's endpoint; 0 if its slice is empty."""
    dialled: int = 80
    shown: Shown = Shown.PORT
    is_problem: bool = True
    """Whether the cause counts as a problem."""


EMPTY = Case(
    "labels",
    CauseCode.SLICE_EMPTY,
    "its EndpointSlice is empty: no pod with an address was found for selector app=labels",
    port=0,
)
CASES = (
    EMPTY,
    Case("refused", CauseCode.ENDPOINT_REFUSES, say(refuses("{ip}:8080")), port=REFUSED),
    Case(
        "source-range",
        CauseCode.SOURCE_DENIED,
        "clients outside 192.0.2.128/25 are dropped",
        spec={"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.128/25"]},
        ingress="203.0.113.10",
        is_problem=False,
    ),
    Case(
        "other-port",
        CauseCode.OTHER_PORT,
        "clients dial 10.96.2.4:81/TCP, which the Service does not have, and are refused",
        dialled=81,
    ),
    Case(
        "external-name",
        CauseCode.NOT_OURS,
        "type ExternalName is served by DNS alone",
        spec={"type": "ExternalName", "externalName": "shop.example"},
        shown=Shown.IGNORED,
        is_problem=False,
    ),
)
"""Two causes of the node are also tested: a firewall, and an unreachable source."""


def cluster_ip(case: Case) -> str:
    return f"10.96.2.{CASES.index(case) + 1}"


def objects_of(case: Case, ip: str) -> Iterator[Object]:
    """Yield a Service, and the slice that a control plane writes for it."""
    is_ours = case.shown is Shown.PORT
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": case.name},
        "spec": {
            **({"clusterIP": cluster_ip(case), "selector": {"app": case.name}} if is_ours else {}),
            "ports": [{"targetPort": case.port or SERVING, "port": 80}],
            **case.spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": case.ingress}] * bool(case.ingress)}},
    }
    if is_ours:
        endpoints = [{"addresses": [ip], "nodeName": NODE}] * bool(case.port)
        yield slice_of(case.name, {"port": case.port or SERVING}, endpoints, NAMESPACE)


def ask(testbed: Testbed, case: Case) -> None:
    """Once the Service is applied, send a request and wait for its end; skip an ignored Service."""
    if case.shown is Shown.IGNORED:
        return
    agent, client = testbed.agent, testbed["laptop" if case.ingress else "pod"]

    def is_in_force() -> bool:
        status = agent.status()
        ports = [p for p in status["ports"] if p["service"] == case.name]
        is_planned = any(bool(port["endpoints"]) == bool(case.port) for port in ports)
        # The status lists a plan shortly before the kernel has its rules.
        return is_planned and not status["sync"]["waiting_since"]

    wait_for("the Service", is_in_force)
    with client.tcp() as sock, contextlib.suppress(OSError):
        # A client whose packets are dropped waits for minutes.
        sock.settimeout(5.0)
        sock.connect((case.ingress or cluster_ip(case), case.dialled))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while sock.recv(4096):
            pass


@contextlib.contextmanager
def firewall(testbed: Testbed) -> Iterator[None]:
    """Drop all input of the node within the block, like a misconfigured firewall."""
    chain = "{ type filter hook input priority 0; policy drop; }"
    testbed.shell(
        f"nft add table ip filter; nft add chain ip filter INPUT '{chain}'; "
        "nft add rule ip filter INPUT iifname lo accept"
    )
    try:
        yield
    finally:
        testbed.shell("nft delete table ip filter")
