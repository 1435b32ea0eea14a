"""Substitutes for a missing worker; the tests at the end use real workers and clients."""

import os
import signal

import pytest

from userspace_proxy import child
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane.substitutes import Substitutes

from ..dataplane.peers import UdpPeer, dial
from ..dataplane.waiting import until
from .pool import TCP


def test_the_worker_with_the_fewest_listeners_substitutes():
    substitutes = Substitutes([5, 9, 3, 4], 100)
    assert substitutes.begin(0, [1, 2, 3]) == 2
    assert substitutes.begin(1, [2, 3]) == 3


def test_a_missing_worker_has_one_substitute_at_a_time():
    substitutes = Substitutes([1, 1, 1], 100)
    assert [substitutes.begin(0, [1, 2]) for _ in range(2)] == [1, None]
    assert [substitutes.end(0) for _ in range(2)] == [1, None]
    assert substitutes.begin(0, [2]) == 2


def test_without_running_workers_there_is_no_substitute():
    assert Substitutes([1, 1], 100).begin(0, []) is None


def test_a_worker_with_too_many_listeners_does_not_substitute():
    assert Substitutes([5, 5], 20).begin(0, [1]) == 1
    assert Substitutes([5, 6], 20).begin(0, [1]) is None


def test_an_exited_worker_is_no_longer_a_substitute():
    substitutes = Substitutes([1, 1, 1], 100)
    substitutes.begin(0, [1])
    substitutes.worker_ended(2)
    assert substitutes.begin(0, [2]) is None
    substitutes.worker_ended(1)
    assert substitutes.begin(0, [2]) == 2


def test_a_substitute_has_separate_numbers_for_listeners_of_missing_workers():
    substitutes = Substitutes([1, 1, 1], 100)
    assert list(substitutes.holders(0, 7)) == [(0, 7)]
    for missing in (0, 1):
        substitutes.begin(missing, [2])
    holders = [*substitutes.holders(0, 7), *substitutes.holders(1, 7), *substitutes.holders(2, 7)]
    assert [holder for holder, _ in holders] == [0, 2, 1, 2, 2]
    assert len({number for holder, number in holders if holder == 2}) == 3
    assert {substitutes.listener(number) for _, number in holders} == {7}
    assert [Substitutes.missing(n, 3) for _, n in holders] == [None, 0, None, 1, None]


class Absence:
    """Kills worker 0 of a pool, and prevents its restart until :meth:`end`."""

    def __init__(self, pool, patch):
        self._pool = pool
        self.patch = patch

    async def begin(self):
        self.patch.setattr(child, "RUNNING_INTERPRETER", "/nowhere/python")
        os.kill(self._pool.pids[0], signal.SIGKILL)
        await until(lambda: self._pool.restarts[0] == 1)

    async def end(self):
        """Wait until the new worker serves alone."""
        self.patch.undo()
        self._pool.timers.jump(0.1)
        await until(lambda: self._pool.workers[0].is_running)
        await self._pool.plane.refresh()
        # The substitute has confirmed that it closed its copies.
        await self._pool.plane.refresh()


@pytest.fixture
def absence(pool, monkeypatch):
    with monkeypatch.context() as patch:
        yield Absence(pool, patch)


async def answers(pool, service, pod, protocol, count=20):
    """Serve clients, which the kernel distributes over all sockets; return their set of answers."""
    at = SocketAddress("127.0.0.1", service.address.port)
    if protocol is TCP:
        clients = [pool.keep(await dial(at)) for _ in range(count)]
        servers = [pool.keep(await pod.accept()) for _ in clients]
        for server in servers:
            await server.send(b"hello")
        return {await client.read() for client in clients}
    clients = [pool.keep(UdpPeer("127.0.0.1", to=at)) for _ in range(count)]
    for client in clients:
        client.send(b"question")
    for _ in clients:
        _, proxy = await pod.receive_from()
        pod.send_to(b"hello", proxy)
    return {await client.receive() for client in clients}


def make_pod(pool, protocol):
    return pool.endpoint() if protocol is TCP else pool.udp_peer()


async def test_clients_of_a_missing_worker_are_served_during_and_after_the_substitution(
    pool, absence
):
    pods = {protocol: make_pod(pool, protocol) for protocol in Protocol}
    served = {protocol: pool.serve([pod], protocol=protocol) for protocol, pod in pods.items()}
    await absence.begin()
    for protocol, pod in pods.items():
        assert await answers(pool, served[protocol], pod, protocol) == {b"hello"}
    await absence.end()
    for protocol, pod in pods.items():
        assert await answers(pool, served[protocol], pod, protocol) == {b"hello"}
        assert +served[protocol].listener.closing == {}
    assert pool.restarts == [1, 0]


async def test_connections_of_a_substitute_survive_the_end_of_the_substitution(pool, absence):
    pod = pool.endpoint()
    web = pool.serve([pod])
    await absence.begin()
    pairs = [await pool.pair(web, pod) for _ in range(20)]
    await absence.end()
    for client, server in pairs:
        await client.send(b"question")
        assert await server.read() == b"question"


async def test_changes_during_a_substitution_apply_during_and_after_it(pool, absence):
    before, now, gone = [], [], []
    for protocol in Protocol:
        old, new = make_pod(pool, protocol), make_pod(pool, protocol)
        web, other = (pool.serve([old], protocol=protocol) for _ in range(2))
        before.append((web, new, protocol))
        gone.append((other, protocol))
    await absence.begin()
    for service, _ in gone:
        pool.update(service)
    for web, new, protocol in before:
        pool.update(web, new.address)
        now += [(web, new, protocol), (pool.serve([new], protocol=protocol), new, protocol)]
    await pool.plane.refresh()
    for served in now:
        assert await answers(pool, *served) == {b"hello"}
    await absence.end()
    for served in now:
        assert await answers(pool, *served) == {b"hello"}
    for service, protocol in gone:
        await refuses(pool, SocketAddress("127.0.0.1", service.address.port), protocol)


async def refuses(pool, at, protocol):
    if protocol is TCP:
        with pytest.raises(ConnectionRefusedError):
            await dial(at)
        return
    for _ in range(10):
        client = pool.keep(UdpPeer("127.0.0.1", to=at))
        client.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            await client.receive()


async def test_a_killed_substitute_is_replaced_by_the_next_running_worker(pool, absence):
    pod = pool.endpoint()
    web = pool.serve([pod])
    await absence.begin()
    absence.patch.undo()
    os.kill(pool.pids[1], signal.SIGKILL)
    await until(lambda: pool.restarts[1] == 1)
    await until(lambda: pool.workers[1].is_running)
    assert pool.pids[0] == 0
    assert await answers(pool, web, pod, TCP) == {b"hello"}
    await absence.end()
    assert await answers(pool, web, pod, TCP) == {b"hello"}
