import asyncio
import logging

import pytest

from userspace_proxy.balance.affinity import AffinityTable
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.descriptors import DESCRIPTORS
from userspace_proxy.dataplane.shedding import held_bytes
from userspace_proxy.kernel.socket_options import buffered_bytes

from .limits import MIB, Limit
from .rig import connection_lines
from .waiting import until


class AtTheLimit:
    """Two Services of a data plane whose descriptors one client can use up.

    Args:
        build: The fixture.
        timers: Advances the time.
    """

    def __init__(self, build, timers):
        # Two listeners, three descriptors for flows, and two for each of 27 connections.
        self.rig = build(Tuning(descriptor_limit=60, connection_log=1.0), timers.clock, timers)
        self.timers = timers
        self.pod = self.rig.endpoint()
        self.web, self.cart = (self.rig.service(self.pod.address) for _ in range(2))

    async def fill(self, *services):
        """Open 27 connections of one client; return them, the oldest one first.

        Args:
            services: The Services that the client dials in turn; by default ``web`` alone.
        """
        services, pairs = services or (self.web,), []
        for number in range(27):
            pairs.append(await self.rig.pair(services[number % len(services)], self.pod))
            self.timers.advance(0.01)
        return pairs

    async def stall(self):
        """Advance the time until accepting counts as stalled."""
        for _ in range(2):
            await until(lambda: not self.rig.engine.descriptors.is_accepting)
            self.timers.advance(0.3)


def resets_in(caplog):
    return [record for record in caplog.records if "resetting longest-idle" in record.getMessage()]


@pytest.fixture
async def at_the_limit(build, timers):
    return AtTheLimit(build, timers)


async def test_idle_connections_of_one_client_make_room_for_another_service(at_the_limit, caplog):
    caplog.set_level(logging.INFO)
    rig, web = at_the_limit.rig, at_the_limit.web
    pairs = await at_the_limit.fill()
    talking = pairs[0]
    await talking[0].send(b"still here")
    assert await talking[1].read() == b"still here"
    other = await rig.client(at_the_limit.cart, source="127.0.0.2")
    await other.send(b"me too")
    await at_the_limit.stall()
    assert await (await at_the_limit.pod.accept()).read() == b"me too"
    for client, _ in pairs[1:9]:
        assert await client.was_reset()
    await talking[1].send(b"yes")
    assert await talking[0].read() == b"yes"
    await pairs[9][0].send(b"also")
    assert await pairs[9][1].read() == b"also"
    assert web.group.counters.evicted == 8
    assert [line.cause for line in connection_lines(caplog)] == ["evicted"] * 8
    (line,) = resets_in(caplog)
    assert line.holder == "127.0.0.1 at shop/web:http"
    assert (line.client, line.service, line.held) == ("127.0.0.1", "shop/web:http", 27)


async def test_a_flooding_client_does_not_make_other_clients_wait(at_the_limit):
    rig = at_the_limit.rig
    await at_the_limit.fill()
    more = [await rig.client(at_the_limit.web) for _ in range(27)]
    await at_the_limit.stall()
    for client in more:
        assert await client.was_reset()
    other = await rig.client(at_the_limit.cart, source="127.0.0.2")
    await other.send(b"me too")
    assert await (await at_the_limit.pod.accept()).read() == b"me too"


async def test_a_client_flooding_one_service_is_served_by_another_service(at_the_limit):
    rig = at_the_limit.rig
    await at_the_limit.fill()
    flood = await rig.client(at_the_limit.web)
    await at_the_limit.stall()
    assert await flood.was_reset()
    client = await rig.client(at_the_limit.cart)
    await client.send(b"me too")
    assert await (await at_the_limit.pod.accept()).read() == b"me too"


async def test_a_client_that_floods_several_services_is_reset_by_each_of_them(at_the_limit):
    rig, services = at_the_limit.rig, (at_the_limit.web, at_the_limit.cart)
    await at_the_limit.fill(*services)
    more = [await rig.client(service) for service in services]
    async with asyncio.timeout(20.0):
        await at_the_limit.stall()
        for client in more:
            assert await client.was_reset()
        for service in services:
            assert await rig.resets_a_client(service)


async def test_among_small_clients_the_largest_loses_a_connection(at_the_limit, caplog):
    caplog.set_level(logging.WARNING)
    rig, services = at_the_limit.rig, (at_the_limit.web, at_the_limit.cart)
    for number in range(27):
        await rig.client(services[number % 2], source=f"127.0.0.{2 + number % 13}")
        await at_the_limit.pod.accept()
    at_the_limit.timers.advance(10.0)
    other = await rig.client(at_the_limit.cart, source="127.0.0.99")
    await other.send(b"me too")
    await at_the_limit.stall()
    assert await (await at_the_limit.pod.accept()).read() == b"me too"
    assert sum(service.group.counters.evicted for service in services) == 1
    (line,) = resets_in(caplog)
    assert line.holder == "127.0.0.2"
    # The other clients have two connections each.
    assert (line.client, line.service, line.held) == ("127.0.0.2", "", 3)


async def test_a_service_with_many_small_clients_makes_room_for_another_service(
    at_the_limit, caplog
):
    caplog.set_level(logging.WARNING)
    rig, pod = at_the_limit.rig, at_the_limit.pod
    for number in range(27):
        await rig.client(at_the_limit.web, source=f"127.0.0.{2 + number % 13}")
        await pod.accept()
    other = await rig.client(at_the_limit.cart, source="127.0.0.99")
    await other.send(b"me too")
    await at_the_limit.stall()
    assert await (await pod.accept()).read() == b"me too"
    (line,) = resets_in(caplog)
    start = "descriptor limit reached, resetting longest-idle connections of"
    assert line.getMessage() == f"{start} several clients at shop/web:http"
    assert (line.client, line.service, line.limit) == ("", "shop/web:http", 60)


async def test_busy_clients_are_not_reset(at_the_limit):
    """Each connection that ends makes room for another one, so accepting doesn't stall."""
    rig, pod = at_the_limit.rig, at_the_limit.pod
    pairs = await at_the_limit.fill()
    waiting = [await rig.client(at_the_limit.web) for _ in range(27)]
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
    assert at_the_limit.web.group.counters.evicted == 0


async def test_connections_leave_descriptors_for_flows(at_the_limit):
    rig = at_the_limit.rig
    peer = rig.udp_peer()
    await at_the_limit.fill()
    await rig.client(at_the_limit.web)
    await until(lambda: not rig.engine.descriptors.is_accepting)
    # The new listener uses one of the three descriptors for flows.
    dns = rig.udp_service(peer.address)
    for _ in range(2):
        client = rig.udp_client(dns)
        client.send(b"question")
        _, flow = await peer.receive_from()
        peer.send_to(b"answer", flow)
        assert await client.receive() == b"answer"
    assert dns.group.counters.evicted == 0


async def stalled(rig, service, pod, **source):
    """Return a client that doesn't read, with bytes that wait for it."""
    client = await rig.client(service, **source)
    await client.send(b"more")
    endpoint = await pod.accept()
    before = sum(1 for c in rig.connections.open if c.down and c.down.waiting_bytes)

    def is_stalled():
        waiting = [c for c in rig.connections.open if c.down and c.down.waiting_bytes]
        return not endpoint.fill() and len(waiting) > before

    await until(is_stalled)
    return client


async def test_a_memory_shortage_resets_only_stalled_readers(timed, timers):
    pod = timed.endpoint()
    web, cart = (timed.service(pod.address) for _ in range(2))
    idle, endpoint = await timed.pair(cart, pod)
    readers = [await stalled(timed, web, pod, source="127.0.0.2") for _ in range(3)]
    limit = Limit(100)
    timed.dataplane.engine.memory.watch(lambda: [limit])
    limit.used_mib = 199
    timers.advance(0.25)
    assert timed.engine.memory.state.is_short
    # A connection that holds up to 1/64 of the limit is spared, so the last one may stay open.
    counters = web.group.counters
    assert len(readers) - 1 <= counters.evicted_for_memory == counters.evicted
    assert len(timed.connections.open) == 4 - counters.evicted
    left = sum(held_bytes(c, counts_sockets=True) for c in timed.connections.open)
    assert left <= timed.engine.memory.spared_bytes
    await idle.send(b"still here")
    assert await endpoint.read() == b"still here"


async def pinned(rig):
    """Return the 6,000 affinity entries of a rig with 20 connections; 15 of 16 MiB are in use.

    That is 1.4 MiB more than 85 %, the size of 5,735 entries.
    """
    pod = rig.endpoint()
    web = rig.service(pod.address, affinity_timeout_s=60)
    for _ in range(20):
        await rig.pair(web, pod)
    entries = AffinityTable(60.0, rig.engine.entries)
    for number in range(6000):
        entries.remember(str(number), pod.address, 0.0)
    limit = Limit(0)
    limit.limit = 16 * MIB
    rig.dataplane.engine.memory.watch(lambda: [limit])
    limit.used_mib = 15
    return entries


async def test_a_memory_shortage_evicts_affinity_entries_before_connections(timed, timers):
    entries = await pinned(timed)
    timers.advance(0.25)
    assert len(entries) == 6000 - 5735
    assert len(timed.connections.open) == 20
    timers.advance(0.25)
    assert len(timed.engine.entries) == 0
    # Connections that hold less than 1/64 of the limit are spared.
    assert len(timed.connections.open) == 16


async def test_evicting_affinity_entries_in_steps_spares_connections(timed, timers, monkeypatch):
    monkeypatch.setattr("userspace_proxy.balance.affinity._STEP_ENTRIES", 1000)
    entries = await pinned(timed)
    timers.advance(0.25)
    assert len(entries) == 5000
    assert len(timed.connections.open) == 20


async def test_during_a_memory_shortage_new_clients_replace_other_clients(timed, timers):
    pod = timed.endpoint()
    web, cart = (timed.service(pod.address) for _ in range(2))
    limit = Limit(100)
    limit.limit = 16 * 64 * 16 * 1024
    limit.used_mib = 0
    timed.dataplane.engine.memory.watch(lambda: [limit])
    pairs = [await timed.pair(web, pod) for _ in range(20)]
    timers.advance(10.0)
    limit.used_mib = 16
    timers.advance(0.25)
    # The remaining connections need 1/64 of the limit.
    assert len(timed.connections.open) == 16
    other = await timed.client(cart, source="127.0.0.2")
    await other.send(b"me too")
    # There is no wait of half a second, because connections are being reset already.
    assert await (await pod.accept()).read() == b"me too"
    assert len(timed.connections.open) == 16
    assert web.group.counters.evicted_for_memory == 5
    for client, _ in pairs:
        client.reset()
    await until(lambda: len(timed.connections.open) == 1)
    timers.advance(0.25)
    assert timed.engine.descriptors.has_room(14 * DESCRIPTORS)


async def test_during_a_memory_shortage_a_flooding_client_is_reset(timed, timers, caplog):
    pod, web = timed.served()
    limit = Limit(0)
    limit.limit = 32 * 64 * 16 * 1024
    timed.dataplane.engine.memory.watch(lambda: [limit])
    for _ in range(40):
        await timed.pair(web, pod)
    limit.used_mib = 32
    timers.advance(0.25)
    before = web.group.counters.evicted_for_memory
    assert await timed.resets_a_client(web)
    (line,) = resets_in(caplog)
    assert line.getMessage().startswith("memory limit nearly reached, ")
    assert (line.limit_mib, hasattr(line, "limit")) == (32, False)
    limit.used_mib = 0
    timers.advance(0.25)
    assert await timed.resets_a_client(web)
    # Eight connections made room, and two were new connections of the client.
    assert web.group.counters.evicted_for_memory == before + 10


async def test_held_bytes_include_process_and_socket_buffers(rig):
    pod = rig.endpoint()
    client, _ = await rig.pair(rig.service(pod.address), pod)
    (connection,) = rig.connections.open
    assert held_bytes(connection, counts_sockets=True) == 0
    await until(lambda: not client.fill() and connection.up and connection.up.waiting_bytes)
    in_process = held_bytes(connection, counts_sockets=False)
    assert in_process == connection.up.waiting_bytes
    sockets = connection.up.source, connection.up.sink

    def is_sum():
        # The client's kernel may still be sending.
        in_sockets = held_bytes(connection, counts_sockets=True) - in_process
        return in_sockets == sum(map(buffered_bytes, sockets))

    await until(is_sum, "nothing is sent any more")
    assert min(map(buffered_bytes, sockets)) > 64 * 1024
