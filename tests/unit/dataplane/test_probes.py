import asyncio
import contextlib
import errno
import logging
import select
import socket

import pytest

from tests.descriptors import descriptors_left
from tests.port_keys import port_key
from userspace_proxy.balance.client_endpoint_pairs import PAIR_S
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.dataplane.probes import _MAX_UNDER_WAY, ProbeDials
from userspace_proxy.model import DialFailure, Failure, SocketAddress
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.serving import Serving

from .peers import SilentEndpoint
from .waiting import until

SILENT = DialFailure(Failure.SILENT, errno.ETIMEDOUT)
ALICE, BOB, CAROL = "10.1.0.1", "10.1.0.2", "10.1.0.3"


def fail(rig, group, client, endpoint):
    """Record a failed dial from a client's address, and request the probe."""
    group.failed(endpoint, SILENT, rig.engine.reactor.now)
    rig.connections.probes.request(group, client, endpoint)


def groups(rig, endpoint, *labels):
    return [EndpointGroup(port_key(label), Serving((endpoint,))) for label in labels]


def is_out(rig, group, endpoint):
    return endpoint in group.balancers.current.ejected(rig.engine.reactor.now)


def knows(rig, client, endpoint):
    return rig.connections.probes.pairs.has(client, endpoint, rig.engine.reactor.clock())


async def test_requests_during_a_probe_share_its_result(rig, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.dataplane")
    endpoint = rig.endpoint().address
    web, shop, dns = groups(rig, endpoint, "shop/web", "shop/shop", "shop/dns")
    for group, client in ((web, ALICE), (web, BOB), (shop, ALICE), (dns, CAROL)):
        fail(rig, group, client, endpoint)
    assert all(is_out(rig, group, endpoint) for group in (web, shop, dns))
    await until(lambda: not rig.connections.probes._under_way, "the probe's end")
    assert not any(is_out(rig, group, endpoint) for group in (web, shop, dns))
    assert all(knows(rig, client, endpoint) for client in (ALICE, BOB, CAROL))
    told = [record.message for record in caplog.records if "answers this node" in record.message]
    assert told == [
        f"{service}: endpoint {endpoint} answers this node, but did not answer {client}"
        for service, client in [("shop/web", ALICE), ("shop/shop", ALICE), ("shop/dns", CAROL)]
    ]


async def test_an_endpoint_is_readmitted_before_its_probe_frees_the_descriptor(rig):
    endpoint = rig.endpoint().address
    (web,) = groups(rig, endpoint, "shop/web")
    fail(rig, web, ALICE, endpoint)
    found = []

    def resume():
        found.append(is_out(rig, web, endpoint))

    rig.engine.descriptors.wait(resume, rig.engine.reactor.now)
    await until(lambda: found, "the descriptor of the probe")
    assert found == [False]


async def test_a_removed_endpoint_is_not_probed(rig):
    gone, stays = rig.endpoint().address, rig.endpoint().address
    group = EndpointGroup(port_key("shop/web"), Serving((gone, stays)))
    group.update(Serving((stays,)))
    fail(rig, group, ALICE, gone)
    assert not rig.connections.probes._under_way
    fail(rig, group, ALICE, stays)
    assert rig.connections.probes._under_way.keys() == {stays}


async def test_an_endpoint_reachable_from_this_node_is_recorded_as_denying_the_client(rig):
    endpoint = rig.endpoint().address
    (web,) = groups(rig, endpoint, "shop/web")
    fail(rig, web, ALICE, endpoint)
    counters = web.counters_of(endpoint)
    assert not counters.denials.is_on
    await until(lambda: knows(rig, ALICE, endpoint), "the answer")
    assert (counters.denials.part.failures, counters.denials.part.client) == (1, ALICE)
    assert not counters.dials.is_on
    assert counters.denials.dial_failure == SILENT
    # The proxy would request the next probe only a minute later; the test requests it at once.
    fail(rig, web, ALICE, endpoint)
    await until(lambda: counters.denials.part.failures == 2, "the second answer")


async def test_denied_clients_are_counted_until_a_client_is_served(rig):
    endpoint = rig.endpoint().address
    (web,) = groups(rig, endpoint, "shop/web")
    probes, denials = rig.connections.probes, web.counters_of(endpoint).denials
    for count, client in enumerate((ALICE, BOB), 1):
        fail(rig, web, client, endpoint)
        await until(lambda count=count: denials.part.failures == count, "the answer")
    for client in (ALICE, BOB):
        probes.denied(web, client, endpoint, SILENT)
    assert (denials.part.failures, denials.part.client) == (4, BOB)
    # CAROL wasn't denied, so her success doesn't end the denials.
    probes.admitted(web.counters_of(endpoint), CAROL, endpoint, rig.engine.reactor.now)
    assert denials.is_on
    rig.engine.reactor.tick()
    probes.admitted(web.counters_of(endpoint), ALICE, endpoint, rig.engine.reactor.now)
    assert not denials.is_on


async def test_an_old_failure_of_another_client_does_not_extend_this_clients_streak(rig):
    endpoint = rig.endpoint().address
    (web,) = groups(rig, endpoint, "shop/web")
    probes, denials = rig.connections.probes, web.counters_of(endpoint).denials
    long_ago = rig.engine.reactor.now - PAIR_S
    denials.dial_failed(long_ago, SILENT, ALICE)
    probes.denied(web, ALICE, endpoint, SILENT)
    assert denials.part.failures == 2
    denials.part = denials.part._replace(last_at=long_ago)
    probes.denied(web, BOB, endpoint, SILENT)
    assert (denials.part.failures, denials.part.client, denials.is_on) == (1, BOB, True)
    # BOB's denial is remembered without a probe, as long as no other client fails.
    rig.engine.reactor.tick()
    probes.admitted(web.counters_of(endpoint), BOB, endpoint, rig.engine.reactor.now)
    assert not denials.is_on


async def test_an_endpoint_that_fails_its_probe_is_not_readmitted(rig):
    endpoint = rig.refusing()
    web, shop = groups(rig, endpoint, "shop/web", "shop/shop")
    fail(rig, web, ALICE, endpoint)
    fail(rig, shop, BOB, endpoint)
    await until(lambda: not rig.connections.probes._under_way, "the probe's end")
    assert is_out(rig, web, endpoint)
    assert is_out(rig, shop, endpoint)
    assert not knows(rig, ALICE, endpoint)


async def test_concurrent_probes_are_bounded_and_clients_are_still_served(rig):
    silent = rig.keep(SilentEndpoint(ip="0.0.0.0")).address.port
    endpoints = [SocketAddress(f"127.1.0.{n}", silent) for n in range(2 * _MAX_UNDER_WAY)]
    web = EndpointGroup(port_key("shop/web"), Serving(tuple(endpoints)))
    rig.engine.descriptors.take(rig.engine.descriptors.limit)
    rig.connections.probes.request(web, ALICE, endpoints[-1])
    rig.engine.descriptors.give(rig.engine.descriptors.limit)
    for endpoint in endpoints:
        rig.connections.probes.request(web, ALICE, endpoint)
    assert list(rig.connections.probes._under_way) == endpoints[:_MAX_UNDER_WAY]
    pod = rig.endpoint()
    await rig.pair(rig.service(pod.address), pod)


@pytest.mark.parametrize("is_older", [True, False])
async def test_only_a_dial_started_after_the_success_counts_as_a_denial(rig, is_older):
    web = rig.service(rig.silent())
    await rig.client(web)
    await until(lambda: rig.connections.open, "the dial")
    (connection,) = rig.connections.open
    probes = rig.connections.probes
    connection.is_preserved = True
    now = rig.engine.reactor.clock()
    web.group.failed(connection.endpoint, SILENT, now)
    web.group.answered(connection.endpoint, now)
    probes.pairs.note(connection.client_ip, connection.endpoint, now)
    connection.began_at = now - 1.0 if is_older else now + 1.0
    connection._dial_failed(SILENT)
    assert web.group.counters_of(connection.endpoint).denials.is_on is not is_older


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
    with descriptors_left(0):
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


async def test_a_stopped_dial_does_not_time_out(reactor, server):
    ended, bugs = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, bug: bugs.append(bug))
    dials = ProbeDials(reactor, 0.02, lambda *result: ended.append(result))
    dials.begin(at(server))
    dials.stop(at(server))
    reactor.loop.call_later(0.04, ended.append, None)
    await until(lambda: ended, "a call after the deadline")
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
