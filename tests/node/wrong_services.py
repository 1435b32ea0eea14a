"""Services with one mistake each that affects clients, and the expected explanations.

    Mistake ──▶ objects ──▶ clients dial ──▶ ``explain``: its sentence contains the cause

The cases of ``broken_services`` have codes that every observer shows. The mistakes here show only
after a client has dialled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.node.broken_services import NAMESPACE, Object
from tests.node.clients import Client
from tests.node.manifests import slice_of
from tests.node.wrong_servers import (
    ABSENT,
    BLACKHOLED,
    BLOCKED_HERE,
    CLOSED,
    HANGING,
    LINK,
    LOCAL_ONLY,
    SERVING,
    UNROUTED,
)
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import Form, say


@dataclass(frozen=True)
class Mistake:
    """A Service that doesn't serve all of its clients, and the expected explanation."""

    name: str
    says: str
    """A part of the result in ``explain``, with ``{pod}`` for the address of "pod"."""
    never: tuple[str, ...] = ()
    """Wrong text that no line may contain."""
    hint: str = ""
    """A part of the remedy."""
    port: Mapping[str, Any] = field(default_factory=lambda: {"port": 80})
    target: int = SERVING
    ips: Sequence[str] = ("{pod}",)
    """The endpoints' addresses."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    dials: int = 3
    wait_s: float = 1.2
    """The time for which a client waits for a byte."""


_DNS = {"port": 53, "protocol": "UDP"}
_SERVED_WRONGLY = ("Clients are served",)
_AFFINITY = {"sessionAffinity": "ClientIP"}

MISTAKES = (
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
        "blackhole",
        f"{BLACKHOLED}:80 can't be dialled: Invalid argument, as by a blackhole route of this node",
        hint=f"`ip route show table all type blackhole match {BLACKHOLED}` on this node shows it",
        ips=(BLACKHOLED,),
    ),
    Mistake(
        "local-only",
        say(refuses("{pod}:9103")),
        hint="or only on loopback",
        target=LOCAL_ONLY,
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
        "pinned-to-the-dead",
        say(refuses("{pod}:8080")) + "; the other one serves",
        target=CLOSED,
        spec=_AFFINITY,
        ips=("{pod}", "{other}"),
        dials=3,
    ),
)


def service_ip(case: Mistake) -> str:
    names = ["original", *(one.name for one in MISTAKES)]
    return f"10.96.3.{names.index(case.name) + 1}"


ORIGINAL = Mistake("original", "", dials=0)


def objects_of(case: Mistake, **places: str) -> Iterator[Object]:
    """Yield the Service and its slice; ``places`` are the addresses of ``pod`` and others."""
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": NAMESPACE, "name": case.name},
        "spec": {
            "clusterIP": service_ip(case),
            "ports": [{"targetPort": case.target, **case.port}],
            **case.spec,
        },
    }
    addresses = [ip.format(**places) for ip in case.ips]
    port = {"port": case.target, "protocol": case.port.get("protocol", "TCP")}
    endpoints = [{"addresses": [ip], "nodeName": "node-1"} for ip in addresses]
    yield slice_of(case.name, port, endpoints, NAMESPACE)


def dial(client: Client, case: Mistake) -> None:
    """Dial a case's Service several times, each time from a new source port."""
    address = service_ip(case), case.port["port"]
    for _ in range(case.dials):
        is_udp = case.port.get("protocol") == "UDP"
        with client.new_udp() if is_udp else client.tcp() as sock, contextlib.suppress(OSError):
            sock.settimeout(max(case.wait_s, 1.0))
            sock.connect(address)
            sock.send(b"GET / HTTP/1.0\r\n\r\n")
            sock.settimeout(case.wait_s)
            while sock.recv(4096):
                pass
