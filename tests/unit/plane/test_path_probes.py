"""Probes of endpoints with real sockets on loopback."""

import contextlib
import socket

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.model import Failure, ServiceKey, SocketAddress
from userspace_proxy.plane import path_probes
from userspace_proxy.plane.path_probes import MAX_UNDER_WAY, PathProbes
from userspace_proxy.plane.probe_schedule import ProbeSchedule

from ..agent.watched import turn, until

WEB, CART = ServiceKey("shop", "web"), ServiceKey("shop", "cart")


def listen(ip="127.0.0.1"):
    server = socket.create_server(
        (ip, 0), family=socket.AF_INET6 if ":" in ip else socket.AF_INET, backlog=64
    )
    server.setblocking(False)
    return server


def refusing():
    """Return an address without a listener."""
    with listen() as server:
        return at(server)


def at(server):
    return SocketAddress(*server.getsockname()[:2])


@pytest.fixture
async def probing():
    noted = []
    schedule = ProbeSchedule(lambda: 0.0, every_s=0.03)
    probes = PathProbes(
        lambda endpoint, failed: noted.append((endpoint, failed and failed.failure)), schedule
    )
    yield probes, noted
    probes.close()


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
async def test_repeated_probes_leave_no_connection_in_the_accept_queue(probing, ip):
    probes, noted = probing
    with listen(ip) as server:
        endpoint = at(server)
        probes.add(endpoint, WEB)
        await until(lambda: len(noted) >= 3)
        assert set(noted) == {(endpoint, None)}
        with socket.create_connection(endpoint) as client:
            accepted, peer = server.accept()
            accepted.close()
            # This client is the first in the accept queue, so the probes left no connection there.
            assert peer[:2] == client.getsockname()[:2]
    assert (probes.sent, probes.failed) == (len(noted), 0)


async def test_a_failing_endpoint_does_not_delay_other_probes(probing):
    probes, noted = probing
    silent = refusing()
    with listen() as server:
        # The interval of a failing endpoint's probes doubles, up to 20 times its first value.
        probes.add(silent, CART)
        await until(lambda: noted.count((silent, Failure.REFUSED)) >= 4)
        probes.add(at(server), WEB)
        await until(lambda: noted.count((at(server), None)) >= 1)
        before = noted.count((silent, Failure.REFUSED))
        await until(lambda: noted.count((at(server), None)) >= 12)
        assert noted.count((silent, Failure.REFUSED)) - before < 4


@pytest.fixture
def silent():
    """Addresses of endpoints that don't answer, twice as many as are probed at the same time."""
    with socket.create_server(("0.0.0.0", 0), backlog=0) as server, contextlib.ExitStack() as full:
        port = server.getsockname()[1]
        for _ in range(3):
            filler = full.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield [SocketAddress(f"127.1.{n >> 8}.{n & 255}", port) for n in range(2 * MAX_UNDER_WAY)]


@pytest.mark.parametrize("namespaces", [1, 2 * MAX_UNDER_WAY])
async def test_concurrent_probes_of_silent_endpoints_are_limited(silent, namespaces, monkeypatch):
    monkeypatch.setattr(path_probes, "DEADLINE_S", 3600.0)
    noted = []
    schedule = ProbeSchedule(lambda: 0.0, every_s=0.01, per_second=1_000_000)
    probes = PathProbes(lambda *result: noted.append(result), schedule)
    with contextlib.closing(probes), listen() as server:
        for number, endpoint in enumerate(silent):
            probes.add(endpoint, ServiceKey(f"x{number % namespaces}", f"web-{number}"))
        await turn()
        assert len(probes._dials) == MAX_UNDER_WAY // (2 if namespaces == 1 else 1)
        if namespaces == 1:
            probes.add(at(server), WEB)
            await until(lambda: noted.count((at(server), None)) >= 3)
        assert len(probes._dials) <= MAX_UNDER_WAY


async def test_an_endpoint_is_probed_until_it_is_discarded_for_all_its_services(probing):
    probes, noted = probing
    with listen() as server, listen() as other:
        probes.add(at(server), WEB)
        probes.add(at(other), WEB)
        for endpoint in (at(server), at(other)):
            probes.add(endpoint, CART)
        await turn()
        for endpoint in (at(server), at(other)):
            probes.discard(endpoint, CART)
        probes.discard(at(server), WEB)
        # Discarding prevents even a probe that is already running from being reported.
        before = len(noted)
        await until(lambda: len(noted) >= before + 3)
        assert {endpoint for endpoint, _ in noted[before:]} == {at(other)}


async def test_the_first_probe_of_another_endpoint_begins_at_once(probing):
    probes, noted = probing
    with listen() as server, listen() as other:
        probes.add(at(server), WEB)
        await until(lambda: noted)
        probes.discard(at(server), WEB)
        noted.clear()
        probes.add(at(other), WEB)
        await turn()
        assert len(noted) + len(probes._dials) == 1


async def test_a_probe_out_of_descriptors_reports_no_endpoint_failure(probing):
    probes, noted = probing
    with listen() as server:
        probes.add(at(server), WEB)
        with descriptors_left(0):
            tried = probes.schedule.finished
            count = []
            probes.schedule.finished = lambda *a, **k: (
                count.append(k["has_failed"]),
                tried(*a, **k),
            )
            await until(lambda: len(count) >= 2)
            assert (noted, set(count)) == ([], {False})
        await until(lambda: noted)
        assert noted[0] == (at(server), None)
