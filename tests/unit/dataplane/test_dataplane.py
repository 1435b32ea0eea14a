import asyncio
import gc
import socket

import pytest

from userspace_proxy.dataplane import DataPlane, EndpointGroup, Tuning
from userspace_proxy.dataplane.ephemeral import EPHEMERAL
from userspace_proxy.errors import ListenError, ShortageError
from userspace_proxy.model import Protocol, SocketAddress

from .house import House, open_sockets
from .peers import Peer, UdpPeer, dial
from .timers import TimerLoop
from .waiting import turns, until

IPS = pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])


# -- refusing and serving ----------------------------------------------------


@IPS
async def test_without_usable_endpoints_a_connection_is_refused_and_never_accepted(house, ip):
    web = house.service(at=ip)
    with pytest.raises(ConnectionRefusedError):
        await house.client(web)
    assert not web.listener.is_serving


@IPS
async def test_without_endpoints_udp_is_refused_at_once(house, ip):
    client = house.udp_client(house.udp_service(at=ip), ip)
    client.send(b"anybody there?")
    with pytest.raises(ConnectionRefusedError):
        await client.receive()


async def test_tcp_serves_on_the_same_port_when_endpoints_come(house):
    web, pod = house.service(), house.endpoint()
    address = web.address
    for _ in range(2):
        house.update(web, pod.address)
        await house.pair(web, pod)
        house.update(web)
        with pytest.raises(ConnectionRefusedError):
            await house.client(web)
    assert web.address == address


async def test_udp_serves_on_the_same_port_when_endpoints_come(house):
    dns, pod = house.udp_service(), house.udp_peer()
    client = house.udp_client(dns)
    for _ in range(2):
        client.send(b"anybody there?")
        with pytest.raises(ConnectionRefusedError):
            await client.receive()
        house.update(dns, pod.address)
        client.send(b"question")
        assert await pod.receive() == b"question"
        house.update(dns)


async def test_clients_in_the_queue_are_reset_when_the_last_endpoint_leaves(house):
    web = house.service(house.endpoint().address)
    queued = [house.keep(Peer(socket.socket())) for _ in range(3)]
    for client in queued:
        client.sock.connect_ex(web.address)
    house.update(web)
    for client in queued:
        assert await client.was_reset()
    assert house.plane.connections == set()


async def test_open_connections_live_on_when_their_endpoint_leaves(house):
    web, pod = house.service(), house.endpoint()
    house.update(web, pod.address)
    client, server = await house.pair(web, pod)
    house.update(web)
    await client.send(b"still here")
    assert await server.read() == b"still here"


async def test_serving_and_refusing_twice_is_the_same_as_once(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    for step in (web.listener.serve, web.listener.refuse, web.listener.refuse):
        step()
    with pytest.raises(ConnectionRefusedError):
        await house.client(web)
    web.listener.serve()
    web.listener.serve()
    await house.pair(web, pod)


async def test_no_other_program_gets_the_port_of_udp_that_refuses(house):
    dns, pod = house.udp_service(), house.udp_peer()
    for _ in range(2):
        with pytest.raises(OSError, match="in use"):
            UdpPeer(port=dns.address.port)
        house.update(dns, pod.address)
        assert dns.listener.is_serving
        with pytest.raises(OSError, match="in use"):
            UdpPeer(port=dns.address.port)
        house.update(dns)


async def test_a_closed_listener_neither_serves_nor_refuses(house):
    web = house.service(house.endpoint().address)
    for step in (web.listener.close, web.listener.close, web.listener.refuse, web.listener.serve):
        step()
    assert not web.listener.is_serving
    with pytest.raises(ConnectionRefusedError):
        await dial(web.address)


async def test_listeners_of_one_group_share_its_turn(house):
    pods = [house.endpoint(), house.endpoint()]
    web = house.service(*(pod.address for pod in pods))
    other = house.plane.listen(web.group, Protocol.TCP, SocketAddress("::1", 0))
    await house.pair(web, pods[0])
    house.keep(await dial(other.address))
    await pods[1].accept()


# -- books -------------------------------------------------------------------


async def test_bytes_are_counted_when_they_are_asked_for(house):
    pod, echo = house.endpoint(), house.udp_peer()
    web, dns = house.service(pod.address), house.udp_service(echo.address)
    client, server = await house.pair(web, pod)
    await client.send(b"123")
    await server.read()
    asker = house.udp_client(dns)
    asker.send(b"12345")
    await echo.receive()
    for _ in range(2):
        house.plane.settle()
        assert web.group.totals().received_bytes == 3
        assert dns.group.totals().received_bytes == 5


async def test_the_flow_table_has_a_quarter_of_the_descriptors(build):
    assert build(Tuning(descriptor_limit=1000)).plane.flows.max_flows == 250
    assert build(Tuning(descriptor_limit=1000, max_flows=7)).plane.flows.max_flows == 7


@pytest.mark.parametrize("processes", [1, 4])
async def test_the_flows_of_all_processes_leave_half_of_the_ephemeral_ports_to_others(
    build, processes
):
    tables = build(Tuning(descriptor_limit=1 << 20, processes=processes)).plane.flows.max_flows
    ports = EPHEMERAL.count(now=0.0)
    assert ports // 2 - processes < tables * processes <= ports // 2


# -- the end -----------------------------------------------------------------


async def test_a_drain_waits_for_the_last_connection(house):
    pod = house.endpoint()
    web = house.service(pod.address)
    pairs = [await house.pair(web, pod) for _ in range(2)]
    web.listener.close()
    draining = asyncio.create_task(house.plane.drain(60))
    for client, server in pairs:
        await client.send(b"goodbye")
        assert await server.read() == b"goodbye"
        assert not draining.done()
        client.close()
        server.close()
    assert await draining == 0


async def test_a_drain_resets_who_stays_too_long(house):
    pod = house.endpoint()
    client, server = await house.pair(house.service(pod.address), pod)
    assert await house.plane.drain(0.01) == 1
    assert await client.was_reset()
    assert await server.was_reset()


async def test_a_drain_of_nothing_ends_at_once(house):
    assert await house.plane.drain(60) == 0


async def test_a_drain_resets_clients_whose_dial_was_never_answered(build):
    house = build(Tuning(connect_timeout_s=60))
    web = house.service(house.silent())
    client = await house.client(web)
    await until(lambda: house.plane.connections)
    assert await house.plane.drain(0) == 1
    assert await client.was_reset()
    assert web.group.totals().active == 0


async def busy(house):
    """Give a house every kind of thing that can be open."""
    pod, echo = house.endpoint(), house.udp_peer()
    web, dns = house.service(pod.address), house.udp_service(echo.address)
    clients = [house.client(web), house.client(house.service(house.silent()))]
    clients = [await client for client in clients]
    await pod.accept()
    asker = house.udp_client(dns)
    asker.send(b"question")
    await echo.receive()
    house.service()
    house.udp_service()
    await until(lambda: len(house.plane.connections) == 2)
    return clients, web


async def test_a_close_resets_connections_and_refuses_from_now_on(house):
    clients, web = await busy(house)
    house.plane.close()
    house.plane.close()
    for client in clients:
        assert await client.was_reset()
    with pytest.raises(ConnectionRefusedError):
        await dial(web.address)


async def test_a_close_leaves_no_descriptor_and_no_timer():
    loop = asyncio.get_running_loop()
    before = open_sockets()
    timers = TimerLoop(loop)
    house = House(Tuning(descriptor_limit=10), timers.clock, timers)
    await busy(house)
    await house.client(house.service(house.endpoint().address))
    await until(lambda: not house.plane.descriptors.is_accepting)
    house.close()
    assert open_sockets() == before
    assert timers.waiting == 0


async def test_a_closed_data_plane_is_given_back():
    house = House()
    await busy(house)
    house.close()
    del house
    asyncio.get_running_loop().set_exception_handler(None)
    await turns(1)
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, DataPlane)]


async def test_a_listener_whose_port_is_taken_leaves_nothing_behind(house):
    before = house.plane.descriptors.in_use
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        with pytest.raises(ListenError):
            house.plane.listen(
                EndpointGroup("shop/web"), Protocol.TCP, SocketAddress(*thief.getsockname())
            )
    assert house.plane.descriptors.in_use == before


async def test_listeners_leave_half_of_the_descriptors_for_connections(build):
    house = build(Tuning(descriptor_limit=100))
    for _ in range(50):
        house.service()
    with pytest.raises(ShortageError, match="half of the descriptors are listeners already"):
        house.service()
