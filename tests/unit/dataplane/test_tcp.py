import _socket
import asyncio
import errno
import gc
import socket
from collections import Counter

import pytest

from tests.descriptors import descriptors_left
from tests.port_keys import port_key
from userspace_proxy.balance.balancer import TRIED_MAX
from userspace_proxy.causes.endpoints import UNANSWERED_S
from userspace_proxy.dataplane import EndpointGroup, Tuning
from userspace_proxy.dataplane import reactor as epoll
from userspace_proxy.dataplane.calls import SystemCalls
from userspace_proxy.dataplane.reactor import Reactor
from userspace_proxy.dataplane.tcp import REDIALS, REDIALS_S, Redials, TcpConnection
from userspace_proxy.model import Handling, ProxyProtocol, SocketAddress
from userspace_proxy.model.failures import dial_failure
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.model.serving import Serving

from .peers import SilentEndpoint
from .rig import UNREACHABLE, Clock, out_of_watches
from .waiters import limited
from .waiting import until

ALICE, BOB = "127.0.0.2", "127.0.0.3"


@pytest.mark.pure
async def test_a_connection_that_epoll_rejects_is_reset(rig, monkeypatch):
    pod = rig.endpoint()
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    connection, client = await rig.begun(group)
    connection.begin()

    monkeypatch.setattr(rig.engine.reactor, "watch", out_of_watches)
    assert await client.was_reset()
    assert rig.connections.open == {}
    assert group.counters.shortages == 1


async def test_bytes_sent_by_an_endpoint_before_the_join_arrive(rig):
    pod = rig.endpoint()
    connection, client = await rig.begun(
        EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    )
    connection.begin()
    assert pod.accept_now().send_some(b"220 ready") == 9
    assert await client.read() == b"220 ready"


async def test_an_endpoint_reset_before_the_header_is_sent_resets_the_client(rig):
    pod = rig.endpoint()
    handling = Handling(proxy_protocol=ProxyProtocol.V1)
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address], handling=handling))
    connection, client = await rig.begun(group)
    connection.begin()
    server = pod.accept_now()
    server.send_some(b"220 ready")
    server.reset()
    # The event was reported before the reset.
    connection._on_dialling(epoll.OUT)
    assert await client.was_reset()


def sends_at_once(connection):
    """Return whether TCP_NODELAY is set on the endpoint's socket."""
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
async def test_nagles_algorithm_is_disabled_only_for_clients_that_send_more_than_one_packet(
    rig, words, is_at_once, said
):
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


async def test_an_endpoint_removed_during_its_dial_still_serves(rig):
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
async def test_only_an_endpoint_ending_a_connection_without_cause_is_blamed(
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


async def test_an_endpoint_that_closes_a_long_unused_connection_is_not_blamed(rig):
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
async def test_the_only_client_without_an_answer_is_named_until_it_is_answered(rig, is_answered):
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


async def test_an_endpoint_that_closes_and_then_resets_is_blamed_once(rig):
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
async def test_a_reset_after_a_response_counts_unless_the_endpoint_had_closed(rig, is_half_closed):
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


async def test_connect_time_and_time_to_first_byte_are_counted(build):
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


async def test_a_failed_dial_counts_towards_the_connect_time(build):
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


QUICK = Tuning(connect_timeout_s=0.02)
PATIENT = Tuning(connect_timeout_s=60)


@pytest.mark.parametrize("dead", ["refusing", "unreachable", "silent"])
async def test_a_dead_endpoint_is_followed_by_the_next_endpoint(build, dead):
    rig = build(QUICK)
    live = rig.endpoint()
    first = {"refusing": rig.refusing, "silent": rig.silent, "unreachable": lambda: UNREACHABLE}
    dead_one = first[dead]()
    web = rig.service(dead_one, live.address)
    client = await rig.client(web)
    await client.send(b"not lost")
    assert await (await live.accept()).read() == b"not lost"
    assert web.group.counters_of(dead_one).failures == web.group.counters.saved == 1
    assert web.group.counters_of(live.address).late == (dead == "silent")
    assert web.group.balancers.current.ejected(rig.engine.reactor.now).keys() == {dead_one}


@pytest.mark.parametrize("distance", [0, 5, -5])
async def test_a_dialled_port_of_a_range_is_mapped_to_the_endpoints_port(rig, distance):
    pod = rig.endpoint()
    listed = SocketAddress(pod.address.ip, pod.address.port - distance)
    web = rig.service(listed)
    at = web.address
    number = at.port - distance
    ranges = (
        DialledRange("192.0.2.1", at.port - 9, at.port + 9, number - 3),
        DialledRange(at.ip, at.port - 9, at.port + 9, number),
    )
    web.group.update(Serving((listed,), ranges=ranges))
    client, server = await rig.pair(web, pod)
    await client.send(b"hello")
    assert await server.read() == b"hello"
    assert web.group.counters_of(listed).connections == 1


def range_of(web, endpoints, distance=5, **fields):
    """Return a Serving whose range contains the port that clients of a test's Service dial."""
    at = web.address
    ranges = (DialledRange(at.ip, at.port - 9, at.port + 9, at.port - distance),)
    return Serving(tuple(endpoints), ranges=ranges, **fields)


@pytest.mark.parametrize("timeout_s", [None, 60], ids=["balanced", "affinity"])
async def test_a_closed_port_of_a_range_does_not_eject_the_endpoint(rig, timeout_s):
    """With affinity, the client is reset instead of redialled: no other pod has its session."""
    pod, closed = rig.endpoint(), rig.refusing()
    listed = [SocketAddress(one.ip, one.port - 5) for one in (closed, pod.address)]
    web = rig.service(*listed)
    web.group.update(range_of(web, listed, affinity_timeout_s=timeout_s))
    client = await rig.client(web)
    if timeout_s is None:
        await client.send(b"hello")
        assert await (await pod.accept()).read() == b"hello"
    else:
        assert await client.was_reset()
    counters = web.group.counters_of(listed[0])
    assert (counters.failures, counters.dials.is_on) == (1, False)
    assert not web.group.balancers.current.ejected(rig.engine.reactor.now)


async def test_an_unreachable_endpoint_of_a_range_is_ejected(rig):
    listed = UNREACHABLE._replace(port=4242)
    web = rig.service(listed)
    web.group.update(range_of(web, [listed]))
    assert await rig.resets_a_client(web)
    assert web.group.balancers.current.ejected(rig.engine.reactor.now).keys() == {listed}


@pytest.mark.pure
async def test_a_connection_to_a_range_is_recorded_with_the_endpoints_mapped_port(rig, monkeypatch):
    pod, dialer = rig.endpoint(), rig.engine.client_dialer
    listed = SocketAddress(pod.address.ip, pod.address.port - 5)
    web = rig.service(listed, at="127.0.0.2")
    web.group.update(range_of(web, [listed]))
    dialer.is_on = True
    monkeypatch.setattr(dialer.locality, "keeps_client", lambda *_: True)
    # On loopback, the socket needn't be transparent.
    monkeypatch.setattr(SystemCalls, "set_option", lambda *_: 0)
    client, server = await rig.joined(web, pod)
    assert dialer.open_connections.has("127.0.0.1", pod.address)
    client.finish()
    server.finish()
    await until(lambda: not rig.connections.open)
    assert not dialer.open_connections.has("127.0.0.1", pod.address)
    assert dialer.ended_connections.has("127.0.0.1", pod.address, rig.engine.reactor.now)


async def test_a_client_of_a_port_recently_removed_from_its_range_is_reset(rig):
    listed = rig.endpoint().address
    web = rig.service(listed)
    web.group.update(range_of(web, [listed]))
    web.group.update(Serving((listed,)), rig.engine.clock())
    assert await rig.resets_a_client(web)


async def test_a_client_of_a_port_long_removed_from_its_range_reaches_the_listed_port(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    web.group.update(range_of(web, [pod.address]))
    web.group.update(Serving((pod.address,)), rig.engine.clock() - 10.0)
    client, server = await rig.pair(web, pod)
    await client.send(b"hello")
    assert await server.read() == b"hello"
    assert not web.group.left_ranges


async def test_a_client_of_a_port_outside_the_ranges_reaches_the_listed_port(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    beside = DialledRange(web.address.ip, web.address.port + 1, web.address.port + 9, 1)
    web.group.update(Serving((pod.address,), ranges=(beside,)))
    client, server = await rig.pair(web, pod)
    await client.send(b"hello")
    assert await server.read() == b"hello"


async def test_a_dial_can_use_an_endpoint_of_the_other_family(rig):
    pod = rig.endpoint("::1")
    client, server = await rig.pair(rig.service(rig.refusing(), pod.address), pod)
    await client.send(b"hello")
    assert await server.read() == b"hello"


async def test_a_client_does_not_wait_for_the_silent_endpoint_of_another_client(build):
    rig = build(PATIENT)
    pod = rig.endpoint()
    web = rig.service(rig.silent(), pod.address)
    waiting = await rig.client(web)
    served = await rig.client(web)
    await served.send(b"me first")
    assert await (await pod.accept()).read() == b"me first"
    assert len(rig.connections.open) == 2
    assert waiting.send_some(b"still waiting") > 0


@pytest.mark.parametrize("dead", ["refusing", "unreachable", "silent"])
async def test_a_client_of_dead_endpoints_is_reset(build, dead):
    rig = build(QUICK)
    make = {"refusing": rig.refusing, "silent": rig.silent, "unreachable": lambda: UNREACHABLE}
    web = rig.service(make[dead](), make[dead]())
    assert await rig.resets_a_client(web)
    assert (web.group.counters.refused, web.group.counters.saved) == (1, 0)
    assert rig.connections.open == {}


async def test_a_client_of_many_dead_endpoints_is_reset_after_sixteen_dials(rig):
    dead = [UNREACHABLE._replace(port=port) for port in range(1, 2 * TRIED_MAX + 1)]
    group = EndpointGroup(port_key("shop/web"), Serving(dead))
    connection, client = await rig.begun(group)
    connection.begin()
    # After the first dial, which fails immediately, other connections get a turn.
    assert group.totals().failures == 1
    assert await client.was_reset()
    assert group.totals().failures == TRIED_MAX
    assert group.counters.refused == 1
    assert [one.failed for one in rig.engine.calls.take()[0]] == [1]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_a_client_of_silent_endpoints_is_reset_after_3_s(timed, timers, count):
    group = EndpointGroup(port_key("shop/web"), Serving([timed.silent() for _ in range(count)]))
    connection, client = await ask(timed, group)
    for _ in range(29):
        timers.advance(0.1)
    assert not connection.is_closed
    timers.advance(0.2)
    assert await client.was_reset()
    assert group.totals().failures == min(count, 3)
    assert group.counters.refused == 1
    assert timers.waiting == 0


async def test_an_endpoint_dialled_for_less_than_the_timeout_is_not_ejected(timed, timers):
    group = EndpointGroup(port_key("shop/web"), Serving([timed.silent() for _ in range(4)]))
    _connection, client = await ask(timed, group)
    # The loop is late: the third dial starts when the client has half a second left.
    timers.advance(1)
    timers.now += 1.5
    timers.advance(0.5)
    assert await client.was_reset()
    assert len(group.balancers.current.ejected(timers.now)) == 2


async def test_a_dial_answered_before_a_late_loop_handles_its_deadline_is_kept(timed, timers):
    pods = [timed.endpoint().address for _ in range(2)]
    group = EndpointGroup(port_key("shop/web"), Serving(pods, **limited(1)))
    connection, _ = await ask(timed, group)
    dialled = connection.endpoint
    # The loop is late: the deadline is handled before the answer.
    timers.advance(1.5)
    assert group.balancers.load_of(dialled) == 1
    await until(lambda: connection.up is not None)
    assert connection.endpoint == dialled
    assert group.balancers.load_of(dialled) == 1


async def ask(rig, group):
    """Return a connection that dials for a new client, and that client."""
    connection, client = await rig.begun(group)
    rig.engine.reactor.tick()
    connection.begin()
    return connection, client


async def test_only_one_client_per_second_dials_recently_silent_endpoints(timed, timers):
    silent = timed.silent()
    group = EndpointGroup(port_key("shop/web"), Serving([silent]))
    await ask(timed, group)
    timers.advance(3)
    assert group.totals().failures == 1
    for _ in range(3):
        _, client = await ask(timed, group)
        assert await client.was_reset()
    timers.advance(1)
    probing, _ = await ask(timed, group)
    _, client = await ask(timed, group)
    assert await client.was_reset()
    timers.advance(1)
    another, _ = await ask(timed, group)
    assert not probing.is_closed
    assert not another.is_closed
    timers.advance(3)
    assert probing.is_closed
    assert another.is_closed


async def test_a_recovered_endpoint_serves_after_a_second_even_if_all_were_silent(timed, timers):
    silent = timed.keep(SilentEndpoint())
    group = EndpointGroup(port_key("shop/web"), Serving([silent.address]))
    await ask(timed, group)
    timers.advance(3)
    silent.close()
    pod = timed.endpoint(port=silent.address.port)
    _, early = await ask(timed, group)
    assert await early.was_reset()
    timers.advance(1)
    _, client = await ask(timed, group)
    await client.send(b"welcome back")
    assert await (await pod.accept()).read() == b"welcome back"
    assert group.balancers.current.ejected(timers.now) == {}


async def test_a_dial_started_before_an_endpoints_return_does_not_eject_it_again(timed, timers):
    silent = timed.silent()
    group = EndpointGroup(port_key("shop/web"), Serving([silent, timed.refusing()]))
    _connection, _ = await ask(timed, group)
    timers.advance(0.5)
    group.failed(silent, dial_failure(errno.ETIMEDOUT, silent.ip), timers.now)
    group.answered(silent, timers.now)
    timers.advance(0.6)
    assert group.counters_of(silent).failures == 2
    assert silent not in group.balancers.current.ejected(timers.now)


@pytest.mark.parametrize("is_only", [True, False])
async def test_a_dial_timing_out_after_a_later_success_ejects_an_endpoint_only_if_there_is_another(
    timed, timers, is_only
):
    silent = timed.keep(SilentEndpoint())
    others = () if is_only else (timed.endpoint().address,)
    group = EndpointGroup(port_key("shop/web"), Serving([silent.address]))
    unanswered, _ = await ask(timed, group)
    timers.advance(0.5)
    silent.close()
    pod = timed.endpoint(port=silent.address.port)
    await assert_served(timed, group, pod)
    group.update(Serving([silent.address, *others]))
    timers.advance(2.5)
    assert unanswered.is_closed is is_only
    assert group.counters_of(pod.address).failures == 1
    assert (silent.address in group.balancers.current.ejected(timers.now)) is not is_only


async def assert_served(rig, group, pod):
    _, client = await ask(rig, group)
    await client.send(b"hello")
    assert await (await pod.accept()).read() == b"hello"


async def test_refusing_endpoints_are_dialled_for_each_client(rig):
    """A refusal costs no time; even the first client after an endpoint's return is served."""
    web = rig.service(rig.refusing())
    for count in (1, 2, 3):
        assert await rig.resets_a_client(web)
        assert web.group.totals().failures == count


async def test_a_dial_without_a_descriptor_is_retried_soon(rig):
    pods = [rig.endpoint(), rig.endpoint()]
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address for pod in pods]))
    connection, client = await rig.begun(group)
    with descriptors_left(0):
        connection.begin()
    assert group.totals().failures == group.counters.shortages == 1
    assert group.balancers.current.ejected(rig.engine.reactor.now) == {}
    await client.send(b"patience")
    assert await (await pods[1].accept()).read() == b"patience"


async def test_a_client_waits_for_a_descriptor_only_for_a_limited_time(timed, timers):
    connection, client = await timed.begun(
        EndpointGroup(port_key("shop/web"), Serving([timed.silent()]))
    )
    with descriptors_left(0):
        connection.begin()
        timers.advance(2.9)
        assert not connection.is_closed
        timers.advance(0.2)
    assert await client.was_reset()
    assert timers.waiting == 0


async def test_no_endpoint_is_dialled_after_a_close_during_the_wait_for_a_descriptor(timed, timers):
    pod = timed.endpoint()
    connection, client = await timed.begun(
        EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    )
    with descriptors_left(0):
        connection.begin()
    connection.close()
    timers.advance(1)
    assert await client.was_reset()
    assert pod.accept_now() is None


@pytest.mark.pure
async def test_a_dial_that_epoll_rejects_is_retried_soon(rig, monkeypatch):
    pod = rig.endpoint()
    group = EndpointGroup(port_key("shop/web"), Serving([pod.address]))
    connection, client = await rig.begun(group)

    with monkeypatch.context() as patch:
        patch.setattr(rig.engine.reactor, "watch", out_of_watches)
        connection.begin()
    await client.send(b"patience")
    assert await (await pod.accept()).read() == b""
    assert await (await pod.accept()).read() == b"patience"


async def test_the_end_of_an_uncounted_dial_does_not_decrease_the_load(rig):
    silent = rig.silent()
    group = EndpointGroup(port_key("shop/web"), Serving([silent]))
    before, _ = await rig.begun(group)
    before.begin()
    group.update(Serving([silent], handling=Handling(max_connections=9)))
    after, _ = await rig.begun(group)
    after.begin()
    before.close()
    assert group.balancers.load_of(silent) == 1
    after.close()
    assert group.balancers.load_of(silent) == 0


async def test_a_self_connected_socket_counts_as_a_failed_dial(rig):
    pod = rig.endpoint()
    own = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    own.bind(("127.0.0.1", 0))
    own.connect(own.getsockname())
    own.setblocking(False)
    itself = SocketAddress(*own.getsockname())
    group = EndpointGroup(port_key("shop/web"), Serving([itself, pod.address]))
    connection, client = await rig.begun(group)
    connection.endpoint = group.balancers.current.pick("127.0.0.1", 0.0)
    connection.endpoint_fd = rig.engine.reactor.calls.adopt(own)
    connection._on_dialling(epoll.OUT)
    await client.send(b"hello")
    assert await (await pod.accept()).read() == b"hello"
    assert group.counters_of(itself).failures == 1


async def test_a_connection_closed_during_its_dial_leaves_no_deadline(rig):
    web = rig.service(rig.silent(), rig.endpoint().address)
    await rig.client(web)
    await until(lambda: rig.connections.open)
    (connection,) = rig.connections.open
    connection.close()
    assert len(rig.connections.dial_deadlines) == len(rig.connections.client_deadlines) == 0


async def test_a_client_is_reset_when_its_last_endpoint_is_removed_during_the_dial(build):
    rig = build(QUICK)
    web = rig.service(rig.silent(), rig.endpoint().address)
    client = await rig.client(web)
    await until(lambda: rig.connections.open)
    rig.update(web)
    assert await client.was_reset()
    assert rig.connections.open == {}


async def test_a_client_is_served_by_an_endpoint_added_during_its_dial(build):
    rig = build(QUICK)
    web = rig.service(rig.silent())
    client = await rig.client(web)
    await until(lambda: rig.connections.open)
    pod = rig.endpoint()
    rig.update(web, pod.address)
    await client.send(b"welcome")
    assert await (await pod.accept()).read() == b"welcome"


async def test_no_further_endpoint_is_dialled_for_a_disconnected_client(build):
    rig = build(QUICK)
    pod = rig.endpoint()
    web = rig.service(rig.silent(), pod.address)
    client = await rig.client(web)
    await until(lambda: rig.connections.open)
    client.reset()
    await until(lambda: not rig.connections.open)
    assert pod.accept_now() is None


WEB, CART = "shop/web:http", "shop/cart:http"


class Dials:
    """Redials that record their turn of the loop, and advance the clock by ``took_s``."""

    def __init__(self):
        self.clock = Clock()
        self.reactor = Reactor(asyncio.get_running_loop(), clock=self.clock)
        self.redials = Redials(self.reactor)
        self.made = []
        self.took_s = 0.0

    def add(self, port, name):
        self.redials.add(port, lambda: self.dial(name))

    def dial(self, name):
        self.clock.now += self.took_s
        self.made.append((name, self.reactor.turn))

    async def names(self, count):
        await until(lambda: len(self.made) == count)
        return [name for name, _ in self.made]

    def per_turn(self):
        return sorted(Counter(turn for _, turn in self.made).values())


@pytest.fixture
async def dials():
    dials = Dials()
    yield dials
    dials.reactor.close()


async def test_a_bounded_number_of_clients_is_redialled_per_turn_in_order(dials):
    for number in range(2 * REDIALS + 1):
        dials.add(WEB, number)
    assert await dials.names(2 * REDIALS + 1) == list(range(2 * REDIALS + 1))
    assert dials.per_turn() == [1, REDIALS, REDIALS]


async def test_a_turn_ends_when_its_dials_have_used_up_its_time(dials):
    dials.took_s = REDIALS_S / 3.5
    for number in range(9):
        dials.add(WEB, number)
    await dials.names(9)
    assert dials.per_turn() == [1, 4, 4]


async def test_service_ports_take_turns_and_share_the_limit(dials):
    for number in range(REDIALS):
        dials.add(WEB, ("web", number))
    for number in range(2):
        dials.add(CART, ("cart", number))
    names = await dials.names(REDIALS + 2)
    assert names[:4] == [("web", 0), ("cart", 0), ("web", 1), ("cart", 1)]
    assert dials.per_turn() == [2, REDIALS]


async def test_a_client_that_fails_again_moves_to_the_end_of_the_queue(dials):
    def fail():
        dials.dial("fails")
        if len(dials.made) < 2:
            dials.redials.add(WEB, fail)

    dials.redials.add(WEB, fail)
    dials.add(WEB, "answered")
    assert await dials.names(3) == ["fails", "answered", "fails"]
    dials.add(WEB, "later")
    assert await dials.names(4) == ["fails", "answered", "fails", "later"]
