import asyncio
import logging
import socket

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BATCH
from userspace_proxy.model import Balance

from .house import access_lines, no_descriptors
from .peers import dial
from .timers import TimerLoop
from .waiting import until

TWO_CONNECTIONS = Tuning(descriptor_limit=5)
"""The listener's socket and two for each."""


async def serving_two(build):
    """Return a house at its descriptor limit, its Service, and both ends of its connections."""
    house = build(TWO_CONNECTIONS)
    pod = house.endpoint()
    web = house.service(pod.address)
    return house, web, pod, [await house.pair(web, pod) for _ in range(2)]


async def test_a_queue_longer_than_a_batch_is_drained(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    clients = [await house.client(web) for _ in range(2 * BATCH + 1)]
    for _ in clients:
        await pod.accept()
    assert len(house.plane.connections) == len(clients)


async def test_at_the_descriptor_limit_clients_wait_in_the_queue(build):
    house, web, pod, _ = await serving_two(build)
    waiting = await house.client(web)
    await until(lambda: not house.plane.descriptors.is_accepting)
    assert waiting.send_some(b"patience") == 8
    assert pod.accept_now() is None
    assert house.plane.descriptors.in_use == 5


async def test_who_waited_is_served_when_a_connection_ends(build):
    house, web, pod, pairs = await serving_two(build)
    waiting = await house.client(web)
    await waiting.send(b"patience")
    await until(lambda: not house.plane.descriptors.is_accepting)
    pairs[0][0].reset()
    assert await (await pod.accept()).read() == b"patience"


async def test_a_listener_that_refuses_while_it_is_paused_resets_who_waits(build):
    house, web, _pod, pairs = await serving_two(build)
    waiting = await house.client(web)
    await until(lambda: not house.plane.descriptors.is_accepting)
    house.update(web)
    assert await waiting.was_reset()
    pairs[0][0].reset()
    await until(lambda: house.plane.descriptors.is_accepting)
    with pytest.raises(ConnectionRefusedError):
        await house.client(web)


async def test_a_listener_that_refused_and_served_while_it_was_paused_serves(build):
    house, web, pod, pairs = await serving_two(build)
    await house.client(web)
    await until(lambda: not house.plane.descriptors.is_accepting)
    house.update(web)
    house.update(web, pod.address)
    later = await house.client(web)
    await later.send(b"me too")
    pairs[0][0].reset()
    assert await (await pod.accept()).read() == b"me too"
    pairs[1][0].reset()
    await house.pair(web, pod)


async def test_a_listener_that_refuses_keeps_its_port_from_others_and_serves_again(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    before = await house.pair(web, pod)
    house.update(web)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="Address already in use"):
            other.bind(web.address)
    with pytest.raises(ConnectionRefusedError):
        await house.client(web)
    house.update(web, pod.address)
    await house.pair(web, pod)
    await before[0].send(b"still here")
    assert await before[1].read() == b"still here"


async def test_a_listener_that_is_closed_while_it_is_paused_is_not_woken(build):
    house, web, _pod, pairs = await serving_two(build)
    waiting = await house.client(web)
    await until(lambda: not house.plane.descriptors.is_accepting)
    web.listener.close()
    assert await waiting.was_reset()
    pairs[0][0].reset()
    await until(lambda: house.plane.descriptors.is_accepting)


async def test_a_limit_that_listeners_fill_but_for_one_connection_serves_one_at_a_time(build):
    house = build(Tuning(descriptor_limit=23))
    pod = house.endpoint()
    services = [house.service(pod.address) for _ in range(20)]
    for web in services[:2] * 2:
        client = await house.client(web)
        (await pod.accept()).reset()
        assert await client.was_reset()


async def test_without_a_descriptor_for_accept_clients_wait_in_the_queue(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    with socket.socket() as waiting:
        waiting.setblocking(False)
        with no_descriptors():
            waiting.connect_ex(web.address)
            await until(lambda: not house.plane.descriptors.is_accepting)
            waiting.send(b"patience")
        assert await (await pod.accept()).read() == b"patience"


async def test_connections_outlive_their_listener(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    client, server = await house.pair(web, pod)
    web.listener.close()
    with pytest.raises(ConnectionRefusedError):
        await dial(web.address)
    await client.send(b"still here")
    assert await server.read() == b"still here"


async def test_who_is_gone_before_it_was_accepted_costs_nothing(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    for _ in range(3):
        (await house.client(web)).reset()
    await house.pair(web, pod)
    await until(lambda: len(house.plane.connections) == 1)


async def test_64_clients_at_once_are_spread_evenly_by_load_before_any_is_answered(house):
    pods = [house.endpoint() for _ in range(4)]
    web = house.service(*(pod.address for pod in pods), balance=Balance.LEAST_CONNECTIONS)
    await asyncio.gather(*(house.client(web) for _ in range(64)))
    await until(lambda: web.group.totals().active == 64)
    assert [web.group.counters_of(pod.address).active for pod in pods] == [16] * 4
    assert web.group._dialling == {}


@pytest.mark.parametrize("dead", ["silent", "refusing"])
async def test_a_dial_that_failed_is_no_load(build, dead):
    house = build(Tuning(connect_timeout_s=0.02))
    web = house.service(getattr(house, dead)(), balance=Balance.LEAST_CONNECTIONS)
    assert await house.resets_a_client(web)
    assert web.group._dialling == {}


async def test_a_dial_that_is_given_up_is_no_load(house):
    silent = house.silent()
    web = house.service(silent, balance=Balance.LEAST_CONNECTIONS)
    await house.client(web)
    await until(lambda: web.group.load_of(silent) == 1)
    assert await house.plane.drain(0) == 1
    assert web.group.load_of(silent) == 0


class AtTheLimit:
    """A data plane whose every place one client of one Service has, and another Service.

    Args:
        build: The fixture.
        timers: Time passes when it says so.
    """

    def __init__(self, build, timers):
        # Two listeners, three descriptors for flows, and two for each of 27 connections.
        self.house = build(Tuning(descriptor_limit=60), timers.clock, timers)
        self.timers = timers
        self.pod = self.house.endpoint()
        self.web, self.cart = (self.house.service(self.pod.address) for _ in range(2))

    async def fill(self):
        """Return the 27 connections of one client, the later the younger."""
        pairs = []
        for _ in range(27):
            pairs.append(await self.house.pair(self.web, self.pod))
            self.timers.advance(0.01)
        return pairs

    async def stall(self):
        """Let so much time pass that nobody waits any longer."""
        for _ in range(2):
            await until(lambda: not self.house.plane.descriptors.is_accepting)
            self.timers.advance(0.3)


@pytest.fixture
async def at_the_limit(build):
    return AtTheLimit(build, TimerLoop(asyncio.get_running_loop()))


async def test_one_clients_idle_connections_make_room_for_a_client_of_another_service(
    at_the_limit, caplog
):
    caplog.set_level(logging.INFO)
    house, web = at_the_limit.house, at_the_limit.web
    pairs = await at_the_limit.fill()
    talking = pairs[0]
    await talking[0].send(b"still here")
    assert await talking[1].read() == b"still here"
    other = await house.client(at_the_limit.cart, source="127.0.0.2")
    await other.send(b"me too")
    await at_the_limit.stall()
    assert await (await at_the_limit.pod.accept()).read() == b"me too"
    for client, _ in pairs[1:9]:
        assert await client.was_reset()
    await talking[1].send(b"yes")
    assert await talking[0].read() == b"yes"
    await pairs[9][0].send(b"also")
    assert await pairs[9][1].read() == b"also"
    assert web.group.counters.evicted_connections == 8
    assert [line.getMessage() for line in access_lines(caplog)] == ["connection evicted"] * 8
    (line,) = [r for r in caplog.records if "largest holder" in r.getMessage()]
    assert (line.client, line.service, line.connections) == ("127.0.0.1", "shop/web:http", 27)


async def test_while_one_client_presses_on_no_other_waits_again(at_the_limit):
    house = at_the_limit.house
    await at_the_limit.fill()
    for _ in range(27):
        await house.client(at_the_limit.web)
    await at_the_limit.stall()
    for _ in range(27):
        await at_the_limit.pod.accept()
    other = await house.client(at_the_limit.cart, source="127.0.0.2")
    await other.send(b"me too")
    assert await (await at_the_limit.pod.accept()).read() == b"me too"


async def test_busy_clients_are_not_reset(at_the_limit):
    """Each end makes room for another one, so nothing stalls."""
    house, pod = at_the_limit.house, at_the_limit.pod
    pairs = await at_the_limit.fill()
    waiting = [await house.client(at_the_limit.web) for _ in range(27)]
    for client, _ in pairs[:13]:
        client.reset()
    for _ in range(13):
        await pod.accept()
    for client, _ in pairs[13:]:
        client.reset()
    for _ in range(14):
        await pod.accept()
    for client in waiting:
        await client.send(b"all")
    assert at_the_limit.web.group.counters.evicted_connections == 0


async def test_connections_leave_some_descriptors_to_flows(at_the_limit):
    house = at_the_limit.house
    peer = house.udp_peer()
    await at_the_limit.fill()
    await house.client(at_the_limit.web)
    await until(lambda: not house.plane.descriptors.is_accepting)
    # Its listener's takes one of the three.
    dns = house.udp_service(peer.address)
    for _ in range(2):
        client = house.udp_client(dns)
        client.send(b"question")
        _, flow = await peer.receive_from()
        peer.send_to(b"answer", flow)
        assert await client.receive() == b"answer"
    assert dns.group.counters.evicted_flows == 0
