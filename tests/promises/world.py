"""A node with an agent, clients and pods, and a source to which Services are written.

World.put(Spec…) ──▶ manifests or API server ──▶ agent ──▶ applied ──▶ World.who(…)
"""

from __future__ import annotations

import abc
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import ask
from tests.node.testbed import Testbed

from .specs import Object, Port, Spec

Address = tuple[str, int]
Ask = tuple[str, Address, str]
"""A client, the address that it dials, and the protocol."""

CLUSTER_CIDR = "10.244.0.0/16,fd00:10:244::/56"
# These networks include addresses that must never be external IPs: the node's, and cluster IPs.
EXTERNAL_IPS = "203.0.113.0/24,fd00:203:0:113::/64,192.0.2.0/24,10.96.20.0/24"
FLAGS = (f"--cluster-cidr={CLUSTER_CIDR}", f"--allow-external-ips={EXTERNAL_IPS}")
ASKS = 12
# With random choice by the kernel, this many requests miss one of three endpoints only once in a
# million runs.
ASKS_WHERE_DRAWN = 40
# The client's timeout in seconds, which ends the wait after a dropped packet.
PATIENCE_S = 1.0
PODS = ("one", "two", "three")
INSIDE = ("pod", "node-1")
_MARK = Spec("mark", ["10.96.255.1"])


class World(abc.ABC):
    """One node whose agent reads Services from a source.

    Args:
        testbed: A testbed with the clients ``pod``, ``node-1`` and ``laptop``; its agent isn't
        started.
    """

    def __init__(self, testbed: Testbed) -> None:
        self.asks = ASKS
        """The number of connections with which a client reaches all endpoints."""
        self.testbed = testbed
        self.agent = testbed.agent
        self._marks = 0
        testbed.add_pods(*PODS, tcp=8080, udp=8080)
        testbed.pod("pod").serve(tcp=8080, udp=8080)
        for name in PODS:
            testbed.pod(name).serve(f"{name}-new", tcp=8081, udp=8081)

    @abc.abstractmethod
    def write(self, *specs: Spec) -> None:
        """Add these Services, or replace Services with the same names."""

    @abc.abstractmethod
    def erase(self, *specs: Spec) -> None:
        """Delete these Services and their slices."""

    @abc.abstractmethod
    def write_node(self, node: Object) -> None:
        """Add or replace the agent's Node object."""

    def put(self, *specs: Spec, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Write Services; until they are applied, call ``meanwhile`` repeatedly."""
        self.write(*specs)
        self.settle(meanwhile)

    def delete(self, *specs: Spec, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Delete Services; call ``meanwhile`` repeatedly until the deletion is applied."""
        self.erase(*specs)
        self.settle(meanwhile)

    def settle(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until the kernel and the workers have applied all writes.

        Changes a marker Service and waits for the change, because writes are applied in order.
        """
        self._marks += 1
        number = self._marks
        mark = replace(_MARK, ports=(Port(number, target=number),)).at("10.244.0.250")
        self.write(mark)

        def is_in_force() -> bool:
            meanwhile()
            status = self.agent.status()
            (port,) = [p for p in status["ports"] if p["service"] == "mark"] or [None]
            return (
                port is not None
                and [f["address"] for f in port["frontends"]] == [f"{_MARK.ips[0]}:{number}"]
                and [e["address"] for e in port["endpoints"]] == [f"10.244.0.250:{number}"]
                and not status["sync"]["waiting_since"]
            )

        wait_for("all to be in force", is_in_force, hint=self.agent.log)
        # Workers answer this query only after all earlier commands.
        self.agent.status()

    def pods(self, *names: str, v6: bool = False) -> list[str]:
        """Return the addresses of these pods, or of all three pods if no name is given."""
        return [self.ip(name, v6=v6) for name in names or PODS]

    def ip(self, name: str, *, v6: bool = False) -> str:
        """Return the address of a pod or client."""
        host = self.testbed[name].host if name in self.testbed.clients else self.testbed.pod(name)
        return str(host.ip6 if v6 else host.ip)

    def who(
        self,
        client: str,
        address: Address,
        protocol: str = "TCP",
        *,
        leaves_nothing: bool = False,
    ) -> str:
        """Return the pod that answers, or ``refused``, ``silence``, ``unreachable``, or an error.

        With ``leaves_nothing``, the client closes with a RST, so that the pod keeps no socket in
        TIME_WAIT, which may drop a later SYN from the same port to another Service address.
        """
        dialler = self.testbed[client]
        made = dialler.tcp(address[0]) if protocol == "TCP" else dialler.new_udp(address[0])
        with made:
            if leaves_nothing:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.settimeout(PATIENCE_S)
            try:
                made.connect(address)
                if protocol == "UDP":
                    return ask(made).decode().removesuffix(": hello")
                made.settimeout(60)
                return _get(made)
            except ConnectionRefusedError:
                return "refused"
            except TimeoutError:
                return "silence"
            except OSError as exc:
                return "unreachable" if "No route" in str(exc) else str(exc)

    def serves(self, client: str, address: Address, protocol: str = "TCP") -> bool:
        return self.who(client, address, protocol) in (*PODS, "pod")

    def all_of(self, client: str, address: Address, protocol: str = "TCP") -> set[str]:
        """Return the results of :meth:`who` for a client that connects repeatedly."""
        return set(self.counts(client, address, protocol))

    def counts(self, client: str, address: Address, protocol: str = "TCP") -> Counter[str]:
        """Return the number of each result of :meth:`who` for a client that connects repeatedly."""
        return Counter(self.who(client, address, protocol) for _ in range(self.asks))

    def by_client(self, address: Address, protocol: str = "TCP") -> dict[str, str]:
        """Return the result of :meth:`who` for each client; all connect at the same time."""
        said = self.answers((name, address, protocol) for name in self.testbed.clients)
        return {name: who for (name, _, _), who in said.items()}

    def answers(self, asked: Iterable[Ask]) -> dict[Ask, str]:
        """Return the result of :meth:`who` for each request; all are sent at the same time."""
        asks = tuple(asked)
        with ThreadPoolExecutor(len(asks)) as pool:
            return dict(zip(asks, pool.map(lambda one: self.who(*one), asks), strict=True))

    def udp(self, client: str, address: Address) -> socket.socket:
        """Return a UDP socket with a fixed port; :meth:`hang_up` closes it."""
        return self.testbed[client].udp(address)

    def shown(self, name: str) -> list[dict[str, Any]]:
        """Return the Service ports of this name from the status JSON."""
        return [p for p in self.agent.status()["ports"] if p["service"] == name]

    def notes(self, name: str) -> list[str]:
        """Return the notes about ignored parts of a Service from the status JSON."""
        return [note["sentence"] for port in self.shown(name) for note in port["notes"]]

    def ignored_reason(self, name: str) -> list[str]:
        """Return why a Service, or one of its ports, isn't served, from the status JSON."""
        ignored = self.agent.status()["ignored"]
        return [i["cause"]["sentence"] for i in ignored if i["service"] == f"shop/{name}"]

    def hang_up(self) -> None:
        self.testbed.hang_up()

    def close(self) -> None:
        self.testbed.close()


class ManifestWorld(World):
    """A world whose agent reads a manifest, which is replaced atomically."""

    def __init__(self, testbed: Testbed) -> None:
        super().__init__(testbed)
        self._specs: dict[str, Spec] = {}
        self._node: Object | None = None
        self._save()
        self.agent.start_until_ready()

    def write(self, *specs: Spec) -> None:
        self._specs |= {spec.name: spec for spec in specs}
        self._save()

    def erase(self, *specs: Spec) -> None:
        for spec in specs:
            del self._specs[spec.name]
        self._save()

    def write_node(self, node: Object) -> None:
        self._node = node
        self._save()

    def _save(self) -> None:
        objects = [o for spec in self._specs.values() for o in spec.objects()]
        if self._node:
            objects.append(self._node)
        self.agent.manifests.write_text("\n---\n".join(json.dumps(o) for o in objects))


def manifest_world(steering: str, *flags: str, asks: int = ASKS) -> Any:
    """Return the fixture ``world`` of a module: a node whose agent reads a manifest.

    Args:
        asks: See :class:`World`.
    """

    @pytest.fixture(scope="module")
    def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManifestWorld]:
        with Testbed(tmp_path_factory.mktemp("agent"), steering, *FLAGS, *flags) as testbed:
            world = ManifestWorld(testbed)
            world.asks = asks
            yield world

    return world


def _get(made: socket.socket) -> str:
    made.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    chunks = []
    while chunk := made.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks).partition(b"\r\n\r\n")[2].decode().strip()


def eventually(what: str, expected: object, actual: Any, *, deadline_s: float = 120.0) -> None:
    """Wait until ``actual()`` equals the expected value; the error contains the last value."""
    seen: list[object] = [None]

    def is_so() -> bool:
        seen[0] = actual()
        return seen[0] == expected

    wait_for(what, is_so, deadline_s=deadline_s, hint=lambda: f"last: {seen[0]!r}")


def after(seconds: float) -> None:
    """Wait for this many seconds without any traffic, like an idle client."""
    until = time.monotonic() + seconds
    wait_for("time to pass", lambda: time.monotonic() >= until, deadline_s=seconds + 1)
