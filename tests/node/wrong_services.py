"""Thirty Services with one mistake each, and what the first line about each must say.

    Mistake ──▶ objects ──▶ clients dial ──▶ ``explain``: its sentence contains the cause

The cases of ``broken_services`` have codes that every observer names. These are of what only shows
once a client has dialled, and of mistakes whose words were missing or wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.node.broken_services import NAMESPACE, Object
from tests.node.clients import Client
from tests.node.wrong_servers import (
    ABSENT,
    ANSWERING_EMPTY,
    ANSWERING_LATE,
    ANSWERING_SOME,
    BLOCKED_HERE,
    CLOSED,
    CLOSING,
    CUTTING_SOME,
    FILTERED,
    HANGING,
    HANGING_SOME,
    HELD,
    LATE_CLOSING,
    LINK,
    LOCAL_ONLY,
    ONE_WAY,
    OTHER_SOURCE,
    PROXY_HEADER,
    REFUSED_BY_RULE,
    RESETTING,
    RESETTING_SOME,
    SERVING,
    UNROUTED,
)
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say


@dataclass(frozen=True)
class Mistake:
    """One Service that doesn't serve its clients, or not all of them."""

    name: str
    says: str
    """Part of the sentence, with ``{pod}`` for the pod's address and ``{ip}`` for the Service's."""
    never: tuple[str, ...] = ()
    """What none of the lines may contain, because it is wrong."""
    hint: str = ""
    """Part of a remedy."""
    port: Mapping[str, Any] = field(default_factory=lambda: {"port": 80})
    target: int = SERVING
    ips: Sequence[str] = ("{pod}",)
    """Of the endpoints."""
    conditions: Mapping[str, bool] = field(default_factory=dict)
    slice_port: Mapping[str, Any] = field(default_factory=dict)
    """Where it differs from the Service's."""
    slices: Callable[[Mistake, str], Iterator[Object]] | None = None
    """The slices; None: one of the above."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    dials: int = 3
    wait_s: float = 1.2
    """How long a client waits for a byte."""
    sends: bytes = b"GET / HTTP/1.0\r\n\r\n"
    """What it sends before; empty: the server speaks first."""
    asks: str = ""
    """The port of the Service that is asked about; empty: all."""


def _lacking(case: Mistake, pod: str) -> Iterator[Object]:
    """Yield the slices that the controller writes where only one of three pods has the port."""
    yield slice_of(case, pod, [pod], [{"name": "metrics", "port": SERVING}])
    yield slice_of(case, pod, ["10.244.0.201", "10.244.0.202"], [], number=2)


def _six(case: Mistake, pod: str) -> Iterator[Object]:
    yield slice_of(case, pod, ["fd00:9::1"], [{"port": SERVING}], family="IPv6")


def _none(_case: Mistake, _pod: str) -> Iterator[Object]:
    yield from ()


_DNS = {"port": 53, "protocol": "UDP"}
_SERVED_WRONGLY = ("Clients are served",)
_AFFINITY = {"sessionAffinity": "ClientIP"}

MISTAKES = (
    # The first seventeen were tried by hand, and nine of them named.
    Mistake(
        "udp-slice",
        'its endpoints have a port named "dns" only for UDP, not TCP',
        port={"name": "dns", "port": 53},
        slice_port={"protocol": "UDP"},
        dials=0,
    ),
    Mistake(
        "held",
        f", NodePort, is not served: node port {HELD}/TCP is held by",
        port={"port": 80, "nodePort": HELD},
        spec={"type": "NodePort"},
        dials=0,
    ),
    Mistake(
        "udp-closed",
        say(refuses("{pod}:8080"), Form.SHORT),
        never=("before", *_SERVED_WRONGLY),
        port=_DNS,
        target=CLOSED,
    ),
    Mistake(
        "udp-no-host",
        f"no host answers for {ABSENT} on {LINK}",
        never=("before", *_SERVED_WRONGLY),
        port=_DNS,
        ips=(ABSENT,),
        wait_s=4.0,
        dials=1,
    ),
    Mistake(
        "hangs",
        "3 of 3 connections got no byte in time; {pod}:9100 accepts connections and sends nothing",
        never=_SERVED_WRONGLY,
        target=HANGING,
    ),
    Mistake("twin", ":80/TCP is already held by broken/original", dials=0),
    Mistake(
        "external-name",
        "type ExternalName is served by DNS alone",
        spec={"type": "ExternalName", "externalName": "shop.example"},
        dials=0,
    ),
    Mistake(
        "headless",
        "it is headless (clusterIP: None): clients reach its endpoints directly",
        spec={"clusterIP": "None"},
        dials=0,
    ),
    Mistake(
        "six",
        "no EndpointSlice of IPv4 belongs to broken/six, only of IPv6",
        slices=_six,
        dials=0,
    ),
    Mistake(
        "ended",
        "its only endpoint is terminating and doesn't serve any more",
        never=("✓ {pod}", "kubectl describe"),
        conditions={"ready": False, "serving": False, "terminating": True},
        dials=0,
    ),
    Mistake(
        "ending",
        "it is terminating and about to vanish",
        conditions={"ready": False, "serving": True, "terminating": True},
        dials=0,
    ),
    Mistake(
        "some-lack-port",
        '2 of its 3 endpoints have no port named "metrics"',
        port={"name": "metrics", "port": 80},
        spec={"selector": {"app": "some-lack-port"}},
        slices=_lacking,
        dials=0,
    ),
    Mistake(
        "pinned",
        "each client keeps to one, until it is away for 3 h (sessionAffinity)",
        spec=_AFFINITY,
        ips=("{pod}", "{other}"),
        dials=0,
    ),
    Mistake(
        "wrong-port",
        "broken/wrong-port has no port 80; it has 8080",
        port={"port": 8080},
        asks="80",
        dials=0,
    ),
    Mistake(
        "loop",
        "its only endpoint is refused: it is an address that this proxy serves",
        hint="Endpoints must be addresses of pods",
        ips=("{original}",),
        dials=0,
    ),
    Mistake(
        "no-port-of-it",
        "it is the ClusterIP of Service broken/original, which has no port 8080/TCP",
        hint="Endpoints must be addresses of pods",
        target=CLOSED,
        ips=("{original}",),
        dials=0,
    ),
    Mistake("annotation", "'60' has no unit (write 60s)", annotations={"hold": "60"}, dials=0),
    Mistake("unused", "no client has connected yet", dials=0),
    # And others.
    Mistake(
        "no-host",
        f"no host answers for {ABSENT} on {LINK}",
        never=_SERVED_WRONGLY,
        ips=(ABSENT,),
        wait_s=5.0,
        dials=1,
    ),
    Mistake("no-route", f"this node has no route to {UNROUTED}", _SERVED_WRONGLY, ips=(UNROUTED,)),
    Mistake(
        "resets-at-once",
        "{pod}:9101 accepts connections and ends them without answering",
        never=("can't be dialled", *_SERVED_WRONGLY),
        target=RESETTING,
    ),
    Mistake(
        "hangs-until-the-end",
        "3 of 3 connections got no byte in time",
        never=_SERVED_WRONGLY,
        target=LATE_CLOSING,
    ),
    Mistake(
        "local-only",
        say(refuses("{pod}:9103")),
        hint="or only on 127.0.0.1",
        target=LOCAL_ONLY,
    ),
    Mistake(
        "policy-drops",
        "{pod}:9104 does not answer: packets are dropped, its program hangs, or its host is gone",
        target=FILTERED,
        dials=1,
        wait_s=5.0,
    ),
    Mistake(
        "policy-rejects",
        say(refuses("{pod}:9105")),
        hint="look for a NetworkPolicy or firewall that rejects packets to it",
        target=REFUSED_BY_RULE,
    ),
    Mistake(
        "answers-from-elsewhere",
        "No datagram has come back (3 flows)",
        never=("Clients get", *_SERVED_WRONGLY),
        port=_DNS,
        target=OTHER_SOURCE,
    ),
    Mistake(
        "answers-every-fourth",
        # The last three aren't answered.
        "12 of 15 flows got no answer within 2 s in the last minute: {pod}:9111 sent nothing "
        "in time",
        never=_SERVED_WRONGLY,
        port=_DNS,
        target=ANSWERING_SOME,
        dials=15,
        wait_s=0.1,
    ),
    Mistake(
        "answers-late",
        "3 of 3 flows were answered only after more than 2 s in the last minute: {pod}:9116 "
        "answered late",
        hint="most resolvers wait for 5 s",
        never=_SERVED_WRONGLY,
        port=_DNS,
        target=ANSWERING_LATE,
        wait_s=0.1,
    ),
    Mistake(
        "firewall-of-the-node",
        "Clients fail: {pod}:9114 can't be dialled: Operation not permitted, as by rules of this "
        "node that drop packets",
        hint="`nft list ruleset` on this node shows",
        port=_DNS,
        target=BLOCKED_HERE,
        wait_s=0.1,
    ),
    Mistake(
        "answers-with-nothing",
        "Clients are served by 1 endpoint",
        never=("has come back",),
        port=_DNS,
        target=ANSWERING_EMPTY,
    ),
    Mistake(
        "expects-proxy-header",
        "No byte has come back in 3 connections: {pod}:9107 accepts connections and ends them "
        "without answering",
        hint="TLS or another protocol",
        target=PROXY_HEADER,
    ),
    Mistake(
        "held-in-vain",
        "and none was served",
        never=("served by 0 endpoints",),
        annotations={"hold": "1s"},
        slices=_none,
        spec={"selector": {"app": "held-in-vain"}},
        wait_s=5.0,
        dials=2,
    ),
    Mistake(
        "pinned-to-the-dead",
        say(refuses("{pod}:8080")) + "; the other one serves",
        target=CLOSED,
        spec=_AFFINITY,
        ips=("{pod}", "{other}"),
        dials=3,
    ),
    Mistake(
        "no-ports",
        "nor any other: targetPort is a name that no container port of its pods has",
        spec={"selector": {"app": "no-ports"}},
        slices=lambda case, pod: iter([slice_of(case, pod, [pod], [])]),
        dials=0,
    ),
    Mistake(
        "one-way",
        "No byte has come back (3 connections)",
        never=("lients are served", "get no answer", "fail"),
        target=ONE_WAY,
        wait_s=0.0,
    ),
    Mistake(
        "resets-every-other",
        "Served by 1 endpoint now; 4 of 8 connections failed in the last minute: {pod}:9109 "
        "accepted connections and ended them without answering",
        hint="It has answered other connections: kubectl logs POD shows why not these",
        target=RESETTING_SOME,
        dials=8,
    ),
    Mistake(
        "hangs-every-other",
        "4 of 8 clients left before an answer in the last minute: {pod}:9112 sent nothing in time",
        never=_SERVED_WRONGLY,
        target=HANGING_SOME,
        dials=8,
        wait_s=2.0,
    ),
    Mistake(
        "cuts-every-other",
        "Served by 1 endpoint now; 4 of 8 connections failed in the last minute: {pod}:9113 reset "
        "connections while or after it answered",
        target=CUTTING_SOME,
        dials=8,
    ),
    Mistake(
        "two-causes",
        f"none of its 2 endpoints answers; no host answers for {ABSENT} on {LINK}; "
        + say(refuses("{pod}:8080"), Form.SHORT),
        never=_SERVED_WRONGLY,
        target=CLOSED,
        ips=("{pod}", ABSENT),
        wait_s=5.0,
        dials=1,
    ),
    Mistake(
        "closes-at-once",
        "No byte has come back in 3 connections: {pod}:9110 accepts connections and ends them "
        "without answering",
        never=("in either direction", "lients get", *_SERVED_WRONGLY),
        target=CLOSING,
        sends=b"",
    ),
)


def service_ip(case: Mistake) -> str:
    name = "original" if case.name == "twin" else case.name
    names = ["original", *(one.name for one in MISTAKES)]
    return f"10.96.3.{names.index(name) + 1}"


ORIGINAL = Mistake("original", "", dials=0)


def objects_of(case: Mistake, **places: str) -> Iterator[Object]:
    """Yield the Service and its slices; ``places`` are ``pod`` and others in ``ips``."""
    kind = case.spec.get("type", "")
    ip = {} if kind == "ExternalName" else {"clusterIP": service_ip(case)}
    prefix = "userspace-proxy.io/"
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": NAMESPACE,
            "name": case.name,
            "annotations": {prefix + name: text for name, text in case.annotations.items()},
        },
        "spec": {**ip, "ports": [{"targetPort": case.target, **case.port}], **case.spec},
    }
    if case.slices is not None:
        yield from case.slices(case, places["pod"])
    elif kind != "ExternalName":
        port = {
            "port": case.target,
            "protocol": case.port.get("protocol", "TCP"),
            "name": case.port.get("name", ""),
            **case.slice_port,
        }
        yield slice_of(case, places["pod"], [ip.format(**places) for ip in case.ips], [port])


def slice_of(
    case: Mistake,
    _pod: str,
    ips: Sequence[str],
    ports: Sequence[Object],
    *,
    number: int = 1,
    family: str = "IPv4",
) -> Object:
    conditions = {"conditions": dict(case.conditions)} if case.conditions else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": NAMESPACE,
            "name": f"{case.name}-{number}",
            "labels": {"kubernetes.io/service-name": case.name},
        },
        "addressType": family,
        "ports": list(ports),
        "endpoints": [{"addresses": [ip], "nodeName": "node-1", **conditions} for ip in ips],
    }


def dial(client: Client, case: Mistake) -> None:
    """Let clients dial one after another, each from a port of its own."""
    address = service_ip(case), case.port["port"]
    for _ in range(case.dials):
        is_udp = case.port.get("protocol") == "UDP"
        with client.new_udp() if is_udp else client.tcp() as sock, contextlib.suppress(OSError):
            sock.settimeout(max(case.wait_s, 1.0))
            sock.connect(address)
            if case.sends:
                sock.send(case.sends)
            if not case.wait_s:
                continue
            sock.settimeout(case.wait_s)
            while sock.recv(4096):
                pass
