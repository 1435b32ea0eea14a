import _socket
import errno
import socket

import pytest

from userspace_proxy.dataplane import EndpointGroup, Serving, Tuning
from userspace_proxy.dataplane import reactor as epoll
from userspace_proxy.dataplane.tuning import DIALS
from userspace_proxy.model import SocketAddress

from .house import UNREACHABLE, Clock, no_descriptors
from .peers import RefusingEndpoint, SilentEndpoint, TcpEndpoint
from .waiting import until

QUICK = Tuning(connect_timeout_s=0.02)
PATIENT = Tuning(connect_timeout_s=60)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
async def test_a_question_and_its_answer_pass(house, ip):
    pod = house.endpoint(ip)
    client, server = await house.pair(house.service(pod.address, at=ip), pod)
    await client.send(b"question")
    assert await server.read() == b"question"
    await server.send(b"answer")
    assert await client.read() == b"answer"


@pytest.mark.parametrize("dead", ["refusing", "unreachable", "silent"])
async def test_the_dial_moves_on_from_a_dead_endpoint(build, dead):
    house = build(QUICK)
    live = house.endpoint()
    first = {"refusing": house.refusing, "silent": house.silent, "unreachable": lambda: UNREACHABLE}
    dead_one = first[dead]()
    web = house.service(dead_one, live.address)
    client = await house.client(web)
    await client.send(b"not lost")
    assert await (await live.accept()).read() == b"not lost"
    assert web.group.counters_of(dead_one).failures == 1
    assert web.group.balancer.ejected(house.engine.reactor.now).keys() == {dead_one}


async def test_the_dial_goes_to_an_endpoint_of_the_other_family(house):
    pod = house.endpoint("::1")
    client, server = await house.pair(house.service(house.refusing(), pod.address), pod)
    await client.send(b"hello")
    assert await server.read() == b"hello"


async def test_a_client_does_not_wait_for_another_ones_silent_endpoint(build):
    house = build(PATIENT)
    pod = house.endpoint()
    web = house.service(house.silent(), pod.address)
    waiting = await house.client(web)
    served = await house.client(web)
    await served.send(b"me first")
    assert await (await pod.accept()).read() == b"me first"
    assert len(house.connections.open) == 2
    assert waiting.send_some(b"still waiting") > 0


@pytest.mark.parametrize("dead", ["refusing", "unreachable", "silent"])
async def test_a_client_of_dead_endpoints_gets_a_reset(build, dead):
    house = build(QUICK)
    make = {"refusing": house.refusing, "silent": house.silent, "unreachable": lambda: UNREACHABLE}
    web = house.service(make[dead](), make[dead]())
    assert await house.resets_a_client(web)
    assert web.group.counters.refused == 1
    assert house.connections.open == set()


async def test_each_dead_endpoint_is_dialled_once_for_one_client(house):
    dead = [house.refusing() for _ in range(5)]
    web = house.service(*dead)
    assert await house.resets_a_client(web)
    assert [web.group.counters_of(one).failures for one in dead] == [1] * 5


async def test_when_all_are_ejected_all_are_tried_anyway(house):
    dead = [house.refusing() for _ in range(3)]
    web = house.service(*dead)
    for _ in range(2):
        assert await house.resets_a_client(web)
    assert [web.group.counters_of(one).failures for one in dead] == [2] * 3


async def test_dials_that_fail_at_once_leave_the_others_their_turn(house):
    dead = [UNREACHABLE._replace(port=port) for port in range(1, 21)]
    group = EndpointGroup("shop/web", Serving(dead))
    connection, client = await house.begun(group)
    connection.dial()
    assert group.totals().failures == DIALS
    assert await client.was_reset()
    assert group.totals().failures == len(dead)


async def test_each_dial_that_waits_has_a_deadline_of_its_own(build):
    clock = Clock()
    house = build(Tuning(connect_timeout_s=0.02), clock)
    first, second = house.silent(), house.silent()
    web = house.service(first, second, house.endpoint().address)
    await house.client(web)
    await until(lambda: house.connections.open)
    clock.now += 0.03
    await until(lambda: web.group.counters_of(first).failures)
    (connection,) = house.connections.open
    assert connection.endpoint == second
    assert web.group.counters_of(second).failures == 0


@pytest.mark.parametrize("count", [1, 2, 3, 5])
async def test_a_client_of_silent_endpoints_is_reset_after_3_s(build, timers, count):
    house = build(None, timers.clock, timers)
    group = EndpointGroup("shop/web", Serving([house.silent() for _ in range(count)]))
    connection, client = await house.begun(group)
    house.engine.reactor.tick()
    connection.dial()
    for _ in range(29):
        timers.advance(0.1)
    assert not connection.is_closed
    timers.advance(0.2)
    assert await client.was_reset()
    assert group.totals().failures == min(count, 3)
    assert group.counters.refused == 1
    assert timers.waiting == 0


async def test_an_endpoint_that_had_less_than_its_time_is_not_to_blame(build, timers):
    house = build(None, timers.clock, timers)
    group = EndpointGroup("shop/web", Serving([house.silent() for _ in range(4)]))
    connection, client = await house.begun(group)
    house.engine.reactor.tick()
    connection.dial()
    # The loop was held up: the third dial begins with half a second left for the client.
    timers.advance(1)
    timers.now += 1.5
    timers.advance(0.5)
    assert await client.was_reset()
    assert len(group.balancer.ejected(timers.now)) == 2


async def ask(house, group):
    """Return a connection that dials for a new client, and the client."""
    connection, client = await house.begun(group)
    house.engine.reactor.tick()
    connection.dial()
    return connection, client


async def test_where_all_were_silent_a_moment_ago_one_client_a_second_dials(build, timers):
    house = build(None, timers.clock, timers)
    silent = house.silent()
    group = EndpointGroup("shop/web", Serving([silent]))
    await ask(house, group)
    timers.advance(3)
    assert group.totals().failures == 1
    for _ in range(3):
        _, client = await ask(house, group)
        assert await client.was_reset()
    timers.advance(1)
    probing, _ = await ask(house, group)
    _, client = await ask(house, group)
    assert await client.was_reset()
    timers.advance(1)
    another, _ = await ask(house, group)
    assert not probing.is_closed
    assert not another.is_closed
    timers.advance(3)
    assert probing.is_closed
    assert another.is_closed


async def test_an_endpoint_that_is_back_serves_after_a_second_although_all_were_silent(
    build, timers
):
    house = build(None, timers.clock, timers)
    silent = house.keep(SilentEndpoint())
    group = EndpointGroup("shop/web", Serving([silent.address]))
    await ask(house, group)
    timers.advance(3)
    silent.close()
    pod = house.endpoint(port=silent.address.port)
    _, early = await ask(house, group)
    assert await early.was_reset()
    timers.advance(1)
    _, client = await ask(house, group)
    await client.send(b"welcome back")
    assert await (await pod.accept()).read() == b"welcome back"
    assert group.balancer.ejected(timers.now) == {}


async def test_endpoints_that_refuse_are_dialled_for_each_client(house):
    """A refusal costs no time, so an endpoint that is back is found by the first client."""
    web = house.service(house.refusing())
    for count in (1, 2, 3):
        assert await house.resets_a_client(web)
        assert web.group.totals().failures == count


async def test_an_answer_that_is_on_its_way_is_no_timeout(house):
    pod = house.endpoint()
    group = EndpointGroup("shop/web", Serving([pod.address, house.refusing()]))
    connection, client = await house.begun(group)
    connection.dial()
    connection.dial_timed_out()
    await client.send(b"in time")
    assert await (await pod.accept()).read() == b"in time"
    assert group.counters_of(pod.address).failures == 0


async def test_a_dial_for_which_there_is_no_descriptor_is_tried_again_soon(house):
    pods = [house.endpoint(), house.endpoint()]
    group = EndpointGroup("shop/web", Serving([pod.address for pod in pods]))
    connection, client = await house.begun(group)
    with no_descriptors():
        connection.dial()
    assert group.totals().failures == group.counters.shortages == 1
    assert group.balancer.ejected(house.engine.reactor.now) == {}
    await client.send(b"patience")
    assert await (await pods[1].accept()).read() == b"patience"


async def test_a_client_does_not_wait_for_a_descriptor_for_ever(build, timers):
    house = build(None, timers.clock, timers)
    connection, client = await house.begun(EndpointGroup("shop/web", Serving([house.silent()])))
    with no_descriptors():
        connection.dial()
        timers.advance(2.9)
        assert not connection.is_closed
        timers.advance(0.2)
    assert await client.was_reset()
    assert timers.waiting == 0


async def test_a_connection_that_is_closed_while_it_waits_for_a_descriptor_stays_closed(
    build, timers
):
    house = build(None, timers.clock, timers)
    pod = house.endpoint()
    connection, client = await house.begun(EndpointGroup("shop/web", Serving([pod.address])))
    with no_descriptors():
        connection.dial()
    connection.close()
    timers.advance(1)
    assert await client.was_reset()
    assert pod.accept_now() is None


async def test_a_dial_that_cannot_be_watched_is_tried_again_soon(house, monkeypatch):
    pod = house.endpoint()
    group = EndpointGroup("shop/web", Serving([pod.address]))
    connection, client = await house.begun(group)

    def out_of_watches(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(house.engine.reactor, "register", out_of_watches)
        connection.dial()
    await client.send(b"patience")
    assert await (await pod.accept()).read() == b""
    assert await (await pod.accept()).read() == b"patience"


async def test_an_endpoint_that_is_the_dialling_socket_itself_counts_as_refusing(house):
    pod = house.endpoint()
    own = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    own.bind(("127.0.0.1", 0))
    own.connect(own.getsockname())
    own.setblocking(False)
    itself = SocketAddress(*own.getsockname())
    group = EndpointGroup("shop/web", Serving([itself, pod.address]))
    connection, client = await house.begun(group)
    connection.endpoint = group.balancer.pick("127.0.0.1", 0.0)
    connection._endpoint_socket = own
    connection._on_dialling(epoll.OUT)
    await client.send(b"hello")
    assert await (await pod.accept()).read() == b"hello"
    assert group.counters_of(itself).failures == 1


async def test_a_client_that_leaves_during_the_dial_leaves_no_deadline(house):
    web = house.service(house.silent(), house.endpoint().address)
    await house.client(web)
    await until(lambda: house.connections.open)
    (connection,) = house.connections.open
    connection.close()
    assert len(house.connections.dial_deadlines) == len(house.connections.client_deadlines) == 0


# -- plans that change meanwhile, and clients that leave ---------------------


async def test_a_client_is_reset_when_its_last_endpoint_leaves_during_the_dial(build):
    house = build(QUICK)
    web = house.service(house.silent(), house.endpoint().address)
    client = await house.client(web)
    await until(lambda: house.connections.open)
    house.update(web)
    assert await client.was_reset()
    assert house.connections.open == set()


async def test_a_dial_moves_on_to_an_endpoint_that_came_meanwhile(build):
    house = build(QUICK)
    web = house.service(house.silent())
    client = await house.client(web)
    await until(lambda: house.connections.open)
    pod = house.endpoint()
    house.update(web, pod.address)
    await client.send(b"welcome")
    assert await (await pod.accept()).read() == b"welcome"


async def test_no_other_endpoint_is_dialled_for_a_client_that_has_gone(build):
    house = build(QUICK)
    pod = house.endpoint()
    web = house.service(house.silent(), pod.address)
    client = await house.client(web)
    await until(lambda: house.connections.open)
    client.reset()
    await until(lambda: not house.connections.open)
    assert pod.accept_now() is None


# -- affinity and ejection ---------------------------------------------------


async def test_a_client_with_affinity_stays_with_its_endpoint(house):
    pods = [house.endpoint() for _ in range(3)]
    web = house.service(*(pod.address for pod in pods), affinity_timeout_s=60)
    for _ in range(4):
        for pod, source in zip(pods, ["127.0.0.2", "127.0.0.3", "127.0.0.4"], strict=True):
            await house.client(web, source=source)
            await pod.accept()


async def test_without_affinity_clients_go_round(house):
    pods = [house.endpoint() for _ in range(3)]
    web = house.service(*(pod.address for pod in pods))
    for pod in pods * 2:
        await house.pair(web, pod)


async def test_a_pinned_client_gets_another_pin_when_its_endpoint_dies(house):
    pods = [house.endpoint() for _ in range(3)]
    web = house.service(*(pod.address for pod in pods), affinity_timeout_s=60)
    await house.pair(web, pods[0])
    pods[0].close()
    for _ in range(3):
        await house.pair(web, pods[1])


async def test_an_ejected_endpoint_is_left_alone_until_its_probe(build):
    clock = Clock()
    house = build(PATIENT, clock)
    dead, live = house.refusing(), house.endpoint()
    web = house.service(dead, live.address)
    failures = []
    for now in (1000, 1001, 1004.9, 1005, 1005.1, 1014.9, 1015, 1034.9, 1035):
        clock.now = now
        await house.pair(web, live)
        await house.pair(web, live)
        failures.append(web.group.counters_of(dead).failures)
    assert failures == [1, 1, 1, 2, 2, 2, 3, 3, 4]


async def test_one_probe_brings_an_endpoint_back(build):
    clock = Clock()
    house = build(PATIENT, clock)
    dead, live = RefusingEndpoint(socket.SOCK_STREAM), house.endpoint()
    web = house.service(dead.address, live.address)
    await house.pair(web, live)
    dead.close()
    back = house.keep(TcpEndpoint(port=dead.address.port))
    clock.now += 5
    await house.pair(web, back)
    await until(lambda: not web.group.balancer.ejected(clock.now))
    for pod in (live, back, live, back):
        await house.pair(web, pod)
