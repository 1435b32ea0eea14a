"""Destinations of packets: simulated verdicts agree with real connections by the same rules."""

from __future__ import annotations

import asyncio
import contextlib
import operator
import socket
import subprocess
from collections.abc import Iterator
from functools import partial
from random import Random

import pytest

from tests.netns import DEADLINE_S, Net
from userspace_proxy.kernel.conntrack import count_by_endpoint
from userspace_proxy.kernel.ctnetlink import pack_address
from userspace_proxy.kernel.socket_options import IP_TRANSPARENT
from userspace_proxy.model import Frontend, Protocol, SocketAddress
from userspace_proxy.steering.base import (
    REFUSE,
    Affinity,
    EndpointChoice,
    KernelTarget,
    SteeringFacts,
    Target,
)
from userspace_proxy.steering.nftables import NftablesSteering

from .conntrack_entries import Flow, Place
from .netlink_kernel import NetlinkKernel
from .netlink_routes import Link, Routes
from .nf_tables import NfTables
from .nf_tables_packets import Packets, in_words
from .nf_tables_seam import Sysctls, installed

NODE, CLIENTS = "10.1.0.1", tuple(f"10.1.7.{n}" for n in range(7, 13))
ENDPOINTS = tuple(SocketAddress(f"10.244.2.{n}", 8080) for n in (2, 3, 4))
FACTS = SteeringFacts(refuse_port=35999, node_addresses=(NODE,))


def frontend(number: int) -> Frontend:
    return Frontend(f"10.96.7.{number}", 80, Protocol.TCP)


WEB, REFUSED, IMPOSTOR, HASHED, PINNED, ONE, OFF = map(frontend, range(1, 8))
TARGETS: dict[Frontend, Target] = {
    WEB: 36001,
    REFUSED: REFUSE,
    IMPOSTOR: 36002,
    HASHED: KernelTarget(36001, (EndpointChoice(ENDPOINTS),), by_client=True),
    PINNED: KernelTarget(36001, (EndpointChoice(ENDPOINTS),), Affinity("pinned", 60)),
    ONE: KernelTarget(36001, (EndpointChoice(ENDPOINTS[:1], ("10.1.7.7/32", "10.1.0.0/24")),)),
    OFF: KernelTarget(36001, (EndpointChoice(ENDPOINTS),), is_on=False),
}


class Real:
    """A node, and another host with clients and endpoints."""

    def __init__(self) -> None:
        self.node, self.other = Net("node"), Net("other")
        fd = self.other.fd
        with self.node:
            command = f"ip link add eth0 type veth peer name peer0 netns /proc/self/fd/{fd}"
            subprocess.run(command.split(), pass_fds=[fd], check=True, timeout=DEADLINE_S)
        self.node.run(f"""
            ip address add {NODE}/16 dev eth0
            ip link set eth0 up
            ip route add default via {CLIENTS[0]}
            sysctl -qw net.ipv4.ip_forward=1""")
        addresses = "\n".join(f"ip address add {ip}/16 dev peer0" for ip in CLIENTS)
        endpoints = "\n".join(f"ip address add {one.ip}/32 dev lo" for one in ENDPOINTS)
        self.other.run(f"""
            {addresses}
            {endpoints}
            ip link set peer0 up
            ip route add 10.96.0.0/12 via {NODE}""")
        self.servers = [
            self._server(self.node, "", 36001, is_transparent=True),
            self._server(self.node, "", 36002, is_transparent=False),
            *(self._server(self.other, *one, is_transparent=False) for one in ENDPOINTS),
        ]

    @staticmethod
    def _server(net: Net, ip: str, port: int, *, is_transparent: bool) -> socket.socket:
        server = net.tcp()
        if is_transparent:
            server.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        server.bind((ip, port))
        server.listen()
        server.setblocking(False)
        return server

    def dial(self, client: str, to: tuple[str, int]) -> str:
        """Connect a client; return the target that it reaches."""
        with (self.node if client == NODE else self.other).tcp() as sock:
            sock.bind((client, 0))
            try:
                sock.connect(to)
            except ConnectionRefusedError:
                return "refused"
        for server in self.servers:
            try:
                accepted, _ = server.accept()
            except BlockingIOError:
                continue
            ip, port = accepted.getsockname()
            accepted.close()
            return f"port {port}" if server in self.servers[:2] else f"endpoint {ip}:{port}"
        raise AssertionError("no server has the connection")

    def close(self) -> None:
        for server in self.servers:
            server.close()
        self.node.close()
        self.other.close()


@pytest.fixture
def real() -> Iterator[Real]:
    try:
        made = Real()
    except OSError as exc:
        pytest.skip(f"no network namespace: {exc.strerror}")
    yield made
    made.close()


def simulated() -> tuple[NetlinkKernel, Packets]:
    rng = Random(1)
    kernel = NetlinkKernel(lambda: 1000.0, rng)
    routes, tables = Routes(kernel), NfTables(kernel, rng)
    gateway = Link(2, "eth0", "veth", addresses=(f"{NODE}/16",), has_gateway=True)
    routes.put(gateway)

    def listens(_protocol: int, port: int) -> bool | None:
        return {36001: True, 36002: False}.get(port)

    return kernel, Packets(tables, routes, kernel.now, rng.randrange, listens)


def verdicts(packets: Packets, flow: Flow, *, is_local: bool) -> Iterator[str]:
    """Yield the possible targets of a connection."""
    for index in range(len(ENDPOINTS)):
        draw = partial(operator.mod, index)
        yield in_words(packets.verdict(flow, is_local=is_local, draw=draw))


async def steer() -> NftablesSteering:
    steering = NftablesSteering(FACTS)
    await steering.start()
    await steering.apply(TARGETS)
    return steering


def test_real_connections_reach_a_target_that_the_simulated_kernel_allows(real: Real) -> None:
    kernel, packets = simulated()
    with installed(kernel, Sysctls(), lambda: -1):
        steering_of_sim = steer()
        with contextlib.suppress(StopIteration):
            steering_of_sim.send(None)
    with real.node:
        steering = asyncio.run(steer())
    places = [(one.ip, one.port) for one in TARGETS if one is not PINNED]
    for to in (*places, (NODE, 36001)):
        for client in (NODE, *CLIENTS):
            flow = Flow(6, Place(client, 40_000), Place(*to))
            wanted = set(verdicts(packets, flow, is_local=client == NODE))
            assert real.dial(client, to) in wanted, (client, to, wanted)
    refused = (REFUSED.ip, REFUSED.port)
    assert packets.send(Flow(6, Place(CLIENTS[0], 40_000), Place(*refused)))[1] is None
    with real.node:
        tracked = count_by_endpoint(4, socket.IPPROTO_TCP).entries
    assert tracked
    assert pack_address(*refused) not in {dialled for dialled, _ in tracked}
    pinned = (PINNED.ip, PINNED.port)
    for client in CLIENTS:
        first = real.dial(client, pinned)
        assert {real.dial(client, pinned) for _ in range(4)} == {first}
        flow = Flow(6, Place(client, 40_000), Place(*pinned))
        outcome, _ = packets.send(flow)
        again = packets.verdict(flow._replace(client=Place(client, 40_001)))
        assert again == outcome
    with real.node:
        asyncio.run(steering.clean_up())
        asyncio.run(steering.close())
