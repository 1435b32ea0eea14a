import asyncio
import contextlib
import errno
import select
import socket

import pytest

from userspace_proxy.dataplane.probe_dials import ProbeDials
from userspace_proxy.dataplane.reactor import Reactor
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.failures import dial_failure

from .rig import no_descriptors
from .waiting import until


@pytest.fixture
async def reactor():
    reactor = Reactor(asyncio.get_running_loop())
    yield reactor
    reactor.close()


@pytest.fixture
async def dialling(reactor):
    ended = []
    dials = ProbeDials(reactor, 60.0, lambda *result: ended.append(result))
    yield dials, ended
    dials.close()


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def at(server):
    return SocketAddress(*server.getsockname())


async def test_a_probe_dial_leaves_nothing_in_the_endpoints_accept_queue(dialling, server):
    dials, ended = dialling
    server.setblocking(False)
    for _ in range(20):
        assert dials.begin(at(server)) is None
        await until(lambda: ended, "the answer")
        assert ended.pop() == (at(server), None)
    assert len(dials) == 0
    # A client that connects afterwards is the first one in the queue.
    with socket.create_connection(at(server)) as client:
        await until(lambda: select.select([server], [], [], 0)[0], "the client")
        accepted, peer = server.accept()
        accepted.close()
        assert peer == client.getsockname()


async def test_a_refusing_endpoint_is_reported_with_its_error(dialling, server):
    dials, ended = dialling
    endpoint = at(server)
    server.close()
    failed = dials.begin(endpoint)
    await until(lambda: failed or ended, "the refusal")
    refused = dial_failure(errno.ECONNREFUSED, endpoint.ip)
    assert refused in (failed, *(failure for _, failure in ended))


async def test_a_dial_that_fails_immediately_is_not_reported_later(dialling):
    dials, ended = dialling
    # The kernel refuses to dial a broadcast address, like one without a route.
    assert dials.begin(SocketAddress("127.255.255.255", 80)) == dial_failure(
        errno.ENETUNREACH, "127.0.0.1"
    )
    assert (len(dials), ended) == (0, [])


async def test_without_descriptors_a_dial_fails_immediately(dialling, server):
    dials, _ = dialling
    with no_descriptors():
        assert dials.begin(at(server)) == dial_failure(errno.EMFILE, "127.0.0.1")


async def test_a_dial_to_a_silent_endpoint_times_out(reactor, server):
    server.listen(0)
    ended = []
    dials = ProbeDials(reactor, 0.05, lambda *result: ended.append(result))
    with contextlib.ExitStack() as fillers:
        for _ in range(3):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(at(server))
        assert dials.begin(at(server)) is None
        await until(lambda: ended, "the deadline")
    assert ended == [(at(server), dial_failure(errno.ETIMEDOUT, "127.0.0.1"))]
    assert len(dials) == 0
    dials.close()


async def test_a_stopped_dial_has_no_deadline(reactor, server):
    ended, bugs = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, bug: bugs.append(bug))
    dials = ProbeDials(reactor, 0.02, lambda *result: ended.append(result))
    dials.begin(at(server))
    dials.stop(at(server))
    reactor.loop.call_later(0.04, ended.append, None)
    await until(lambda: ended, "a time after the deadline")
    assert (ended, bugs) == ([None], [])
    dials.close()


async def test_a_stopped_dial_reports_no_result(dialling, server):
    dials, ended = dialling
    with socket.create_server(("127.0.0.1", 0)) as other:
        dials.begin(at(server))
        dials.stop(at(server))
        dials.stop(at(server))
        dials.begin(at(other))
        await until(lambda: ended, "the answer")
        assert ended == [(at(other), None)]
