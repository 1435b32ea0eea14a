import gc
import socket

import pytest

from tests.port_keys import port_key
from userspace_proxy.causes.endpoints import UNANSWERED_S
from userspace_proxy.dataplane import EndpointGroup, Tuning
from userspace_proxy.dataplane import reactor as epoll
from userspace_proxy.dataplane.tcp import TcpConnection
from userspace_proxy.model import Handling, ProxyProtocol
from userspace_proxy.model.serving import Serving

from .rig import UNREACHABLE, Clock, out_of_watches
from .waiting import until

ALICE, BOB = "127.0.0.2", "127.0.0.3"


async def test_a_connection_that_cannot_be_watched_is_reset(rig, monkeypatch):
    pod = rig.endpoint()
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    connection, client = await rig.begun(group)
    connection.begin()

    monkeypatch.setattr(rig.engine.reactor, "watch", out_of_watches)
    assert await client.was_reset()
    assert rig.connections.open == {}
    assert group.counters.shortages == 1


async def test_bytes_that_an_endpoint_sends_before_the_join_arrive(rig):
    pod = rig.endpoint()
    connection, client = await rig.begun(
        EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    )
    connection.begin()
    assert pod.accept_now().send_some(b"220 ready") == 9
    assert await client.read() == b"220 ready"


async def test_an_endpoint_that_resets_before_the_header_is_sent_resets_the_client(rig):
    pod = rig.endpoint()
    handling = Handling(proxy_protocol=ProxyProtocol.V1)
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address], handling=handling))
    connection, client = await rig.begun(group)
    connection.begin()
    server = pod.accept_now()
    server.send_some(b"220 ready")
    server.reset()
    # The event was reported before the reset.
    connection.dial._on_dialling(epoll.OUT)
    assert await client.was_reset()


def sends_at_once(connection):
    """Return whether Nagle's algorithm is off towards the endpoint."""
    return connection.up.sink.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("words", "is_at_once"),
    [
        pytest.param([b"question"], False, id="one-packet"),
        pytest.param([b"question", b"another"], True, id="two-questions"),
        pytest.param([bytes(537)], True, id="maybe-two-packets"),
        pytest.param([b"short", bytes(537)], True, id="a-short-and-a-long-one"),
    ],
)
@pytest.mark.parametrize("said", ["before", "after"])
async def test_sent_data_never_wait_for_an_ack(rig, words, is_at_once, said):
    pod = rig.endpoint()
    connection, client = await rig.begun(
        EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    )
    if said == "before":
        await client.send(words[0])
    connection.begin()
    server = await pod.accept()
    for number, word in enumerate(words):
        if number or said == "after":
            await client.send(word)
        assert await server.read_exactly(len(word)) == word
    assert bool(sends_at_once(connection)) is is_at_once


async def test_an_endpoint_that_left_while_it_was_dialled_still_serves(rig):
    pod = rig.endpoint()
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    connection, client = await rig.begun(group)
    connection.begin()
    group.update(Serving([rig.refusing()]))
    await client.send(b"just in time")
    assert await (await pod.accept()).read() == b"just in time"
    assert group.totals().active == 1


async def test_bytes_sent_before_the_dial_ended_arrive_with_the_clients_fin(build):
    rig = build(Tuning(connect_timeout_s=0.02))
    pod = rig.endpoint()
    client = await rig.client(rig.service(rig.silent(), pod.address))
    await client.send(b"question")
    client.finish()
    server = await pod.accept()
    assert await server.read_all() == b"question"
    await server.send(b"answer")
    server.close()
    assert await client.read_all() == b"answer"


async def test_bytes_sent_before_the_dial_ended_arrive_with_the_clients_reset(rig):
    pod = rig.endpoint()
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    connection, client = await rig.begun(group)
    await client.send(b"last words")
    client.reset()
    connection.begin()
    server = await pod.accept()
    assert await server.read_exactly(10) == b"last words"
    assert await server.was_reset()


def living():
    return [thing for thing in gc.get_objects() if isinstance(thing, TcpConnection)]


async def complete(rig):
    pod = rig.endpoint()
    client, server = await rig.pair(rig.service(pod.address), pod)
    client.close()
    server.close()


async def left_by_the_client(rig):
    pod = rig.endpoint()
    client, _ = await rig.pair(rig.service(pod.address), pod)
    client.reset()


async def left_by_the_endpoint_after_a_half_close(rig):
    pod = rig.endpoint()
    client, server = await rig.pair(rig.service(pod.address), pod)
    client.finish()
    assert await server.read() == b""
    server.reset()


async def left_with_a_full_buffer(rig):
    pod = rig.endpoint()
    client, _ = await rig.pair(rig.service(pod.address), pod)
    await until(lambda: not client.fill() and any(c.up.waiting_bytes for c in rig.connections.open))
    client.reset()
    pod.close()


async def never_answered(rig):
    assert await rig.resets_a_client(rig.service(rig.refusing(), UNREACHABLE))


@pytest.mark.parametrize(
    "ending",
    [
        complete,
        left_by_the_client,
        left_by_the_endpoint_after_a_half_close,
        left_with_a_full_buffer,
        never_answered,
    ],
)
async def test_an_ended_connection_is_freed_without_the_garbage_collector(rig, ending):
    gc.collect()
    gc.disable()
    try:
        await ending(rig)
        await until(lambda: not rig.connections.open)
        assert living() == []
    finally:
        gc.enable()


async def closes_it(client, server):
    await client.send(b"question")
    await server.read()
    server.close()
    assert await client.read() == b""


async def resets_it(client, server):
    server.reset()
    assert await client.was_reset()


async def closes_it_at_once(client, server):
    server.close()
    assert await client.read() == b""


async def closes_it_after_the_client(client, server):
    await client.send(b"a log line, to which there is no answer")
    client.finish()
    await server.read_all()
    server.close()


async def resets_it_after_the_client(client, server):
    await client.send(b"a log line, to which there is no answer")
    client.finish()
    await server.read_all()
    server.reset()


async def is_left_by_the_client(client, server):
    client.reset()


async def resets_it_after_a_byte(client, server):
    await server.send(b"2")
    await client.read_exactly(1)
    server.reset()
    assert await client.was_reset()


@pytest.mark.parametrize(
    ("ending", "resets", "empty"),
    [
        (closes_it, 0, 1),
        (resets_it, 1, 0),
        (closes_it_at_once, 0, 1),
        (closes_it_after_the_client, 0, 0),
        (resets_it_after_the_client, 0, 0),
        (is_left_by_the_client, 0, 0),
        (resets_it_after_a_byte, 1, 0),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_only_an_endpoint_that_ends_a_connection_without_need_is_to_blame(
    rig, ending, resets, empty
):
    pod, web = rig.served()
    client, server = await rig.joined(web, pod)
    await ending(client, server)
    client.close()
    await until(lambda: not rig.connections.open)
    counters = web.group.counters_of(pod.address)
    assert (counters.resets, counters.empty) == (resets, empty)
    is_cut = ending is resets_it_after_a_byte
    assert (counters.ends.is_on, counters.cuts.is_on) == (
        bool(resets or empty) and not is_cut,
        is_cut,
    )
    assert counters.unanswered == resets + empty - is_cut
    assert web.group.balancers.current.ejected(rig.engine.reactor.now) == {}


async def test_an_endpoint_may_close_what_has_been_idle_from_the_start(rig):
    pod, web = rig.served()
    client, server = await rig.joined(web, pod)
    (connection,) = rig.connections.open
    connection.exchange.answered_at -= UNANSWERED_S
    await closes_it_at_once(client, server)
    client.close()
    await until(lambda: not rig.connections.open)
    counters = web.group.counters_of(pod.address)
    assert (counters.empty, counters.ends.is_on) == (0, False)


@pytest.mark.parametrize("is_answered", [False, True])
async def test_a_client_that_alone_gets_no_answer_is_known(rig, is_answered):
    pod, web = rig.served()
    for last in range(2, 8):
        turned_away, is_last = last % 2 == 0, last == 7
        source = ALICE if turned_away or (is_last and is_answered) else BOB
        client = await rig.client(web, source=source)
        server = await pod.accept()
        await client.send(b"question")
        await server.read()
        if not turned_away:
            await server.send(b"answer")
            await client.read_exactly(6)
        server.close()
        client.close()
        await until(lambda: not rig.connections.open)
    exclusions = web.group.counters_of(pod.address).exclusions
    assert (exclusions.part.failures, exclusions.part.client) == (2, ALICE)
    assert exclusions.is_on is not is_answered
    failed = {one.client: one.failed for one in rig.engine.calls.take()[0]}
    assert failed == {ALICE: 3, BOB: 0}


async def test_an_endpoint_that_closes_and_then_resets_a_connection_is_blamed_once(rig):
    pod, web = rig.served()
    client, server = await rig.pair(web, pod)
    await client.send(b"question")
    await server.read()
    server.close()
    assert await client.read() == b""
    await client.send(b"another one")
    await until(lambda: not rig.connections.open)
    counters = web.group.counters_of(pod.address)
    assert (counters.resets, counters.empty, counters.ends.part.failures) == (0, 1, 1)


@pytest.mark.parametrize("is_half_closed", [False, True])
async def test_a_reset_after_an_answer_counts_unless_the_endpoint_had_closed(rig, is_half_closed):
    pod, web = rig.served()
    cuts = web.group.counters_of(pod.address).cuts
    client, server = await rig.pair(web, pod)
    await server.send(b"half an answer")
    await client.read_exactly(14)
    if is_half_closed:
        server.finish()
        assert await client.read() == b""
    server.reset()
    await until(lambda: not rig.connections.open)
    assert (cuts.is_on, web.group.totals().resets) == (not is_half_closed, not is_half_closed)
    client, server = await rig.pair(web, pod)
    server.close()
    client.close()
    await until(lambda: not rig.connections.open)
    assert not cuts.is_on


async def test_waits_for_an_endpoint_and_for_its_first_byte_are_counted(build):
    clock = Clock()
    rig = build(clock=clock)
    pod, web = rig.served()
    client, server = await rig.joined(web, pod)
    clock.now += 100.0
    await client.send(b"a question after some thought")
    await server.read()
    clock.now += 2.0
    for _ in range(2):
        await server.send(b"answer")
        await client.read()
    assert (web.group.connect_times.count, web.group.connect_times.seconds) == (1, 0.0)
    assert (web.group.first_byte_times.count, web.group.first_byte_times.seconds) == (1, 2.0)


async def test_a_failed_dial_is_a_part_of_the_wait_for_an_endpoint(build):
    clock = Clock()
    rig = build(Tuning(connect_timeout_s=0.02), clock=clock)
    pod = rig.endpoint()
    web = rig.service(rig.silent(), pod.address)
    await rig.client(web)
    await until(lambda: rig.connections.open)
    clock.now += 1.0
    await pod.accept()
    await until(lambda: web.group.connect_times.count)
    assert web.group.connect_times.seconds == 1.0
