"""The engine, and TCP connections that a test's dialer makes."""

import asyncio
import errno
import socket
import time

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.engine import Engine
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane

from .rig import Clock, Rig, open_sockets, out_of_watches
from .waiting import until

FIRST = SocketAddress("10.244.0.1", 8080)
SECOND = SocketAddress("10.244.0.2", 8080)


class HeldDialer:
    """A dialer whose dials end when the test ends them."""

    def __init__(self):
        self.dials = []
        self.service_ports = set()
        self.given_up = []

    def dial(self, service_port, endpoint, opened):
        self.service_ports.add(service_port)
        self.dials.append((endpoint, opened))
        return lambda: self.given_up.append(endpoint)


@pytest.fixture
async def make():
    """Yield a function that returns a rig and its dialer."""
    rigs = []

    def make(tuning=None, clock=time.monotonic):
        dialer = HeldDialer()
        plane = Plane(asyncio.get_running_loop(), None, tuning, clock=clock, dialer=dialer)
        rigs.append(Rig(plane=plane))
        return rigs[-1], dialer

    yield make
    for rig in rigs:
        rig.close()
        assert rig.bugs == []


def pair():
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


async def test_a_client_is_joined_to_the_dialers_socket(make):
    rig, dialer = make()
    web = rig.service(FIRST._replace(port=FIRST.port - 3))
    at = web.address
    ranges = (DialledRange(at.ip, at.port - 3, at.port, at.port - 3),)
    web.group.update(Serving(web.group.serving.endpoints, ranges=ranges))
    client = await rig.client(web)
    await client.send(b"question")
    await until(lambda: dialer.dials)
    ((endpoint, opened),) = dialer.dials
    assert endpoint == FIRST, "the endpoint of the dialled port, not of the range's first"
    assert dialer.service_ports == {"shop/web:http"}
    ours, theirs = pair()
    with ours:
        opened(theirs)
        assert await asyncio.get_running_loop().sock_recv(ours, 8) == b"question"
        ours.sendall(b"answer")
        assert await client.read() == b"answer"
    assert dialer.given_up == []


async def test_after_a_failed_dial_the_next_endpoint_serves_the_client(make):
    rig, dialer = make()
    web = rig.service(FIRST, SECOND)
    client = await rig.client(web)
    await until(lambda: dialer.dials)
    dialer.dials[0][1](errno.ECONNREFUSED)
    await until(lambda: len(dialer.dials) == 2)
    ours, theirs = pair()
    with ours:
        assert [endpoint for endpoint, _ in dialer.dials] == [FIRST, SECOND]
        dialer.dials[1][1](theirs)
        ours.sendall(b"hello")
        assert await client.read() == b"hello"
    assert web.group.counters.saved == web.group.counters_of(FIRST).failures == 1
    assert web.group.balancers.current.ejected(rig.engine.reactor.now).keys() == {FIRST}


async def test_a_slow_dial_is_abandoned(make):
    clock = Clock()
    rig, dialer = make(Tuning(connect_timeout_s=0.02), clock)
    web = rig.service(FIRST, SECOND)
    client = await rig.client(web)
    await until(lambda: dialer.dials)
    clock.now += 0.03
    await until(lambda: len(dialer.dials) == 2)
    assert dialer.given_up == [FIRST]
    assert web.group.counters_of(FIRST).failures == 1
    clock.now += 1
    assert await client.was_reset()
    assert dialer.given_up == [FIRST, SECOND]


async def test_the_dial_for_a_reset_client_is_abandoned(make):
    rig, dialer = make()
    await rig.client(rig.service(FIRST))
    await until(lambda: dialer.dials)
    rig.connections.reset_all()
    assert dialer.given_up == [FIRST]


@pytest.mark.pure
async def test_a_socket_that_epoll_rejects_counts_as_a_failed_dial(make, monkeypatch):
    rig, dialer = make()
    client = await rig.client(rig.service(FIRST))
    await until(lambda: dialer.dials)

    ours, theirs = pair()
    with ours:
        monkeypatch.setattr(rig.engine.reactor, "watch", out_of_watches)
        dialer.dials[0][1](theirs)
        assert theirs.fileno() == -1
        assert await client.was_reset()


async def test_closing_an_engine_twice_leaves_no_socket_open():
    before = open_sockets()
    engine = Engine(asyncio.get_running_loop(), Tuning(descriptor_limit=7))
    assert (engine.descriptors.limit, open_sockets()) == (7, before + 1)
    for _ in range(2):
        engine.close()
    assert open_sockets() == before
