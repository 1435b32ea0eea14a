"""A data plane with the plane in its loop; what clients see of all planes is in test_link.py."""

import asyncio
import gc
import socket

import pytest

from userspace_proxy.dataplane import DataPlane, EndpointGroup, Tuning
from userspace_proxy.dataplane.sockets import open_listening
from userspace_proxy.errors import ListenError, ShortageError
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import Wanted

from .house import House, open_sockets
from .peers import Peer, dial
from .timers import TimerLoop
from .waiting import turns, until

ANY = SocketAddress("127.0.0.1", 0)

# -- listeners ---------------------------------------------------------------


async def test_clients_in_the_queue_are_reset_when_the_last_endpoint_leaves(house):
    web = house.service(house.endpoint().address)
    queued = [house.keep(Peer(socket.socket())) for _ in range(3)]
    for client in queued:
        client.sock.connect_ex(web.address)
    house.update(web)
    for client in queued:
        assert await client.was_reset()
    assert not house.connections.open


async def test_listeners_of_one_group_share_its_turn(house):
    pods = [house.endpoint(), house.endpoint()]
    web = house.service(*(pod.address for pod in pods))
    web.wanted["other"] = Wanted(Protocol.TCP, (SocketAddress("::1", 0),))
    answer = house.plane.serve(web.served, web.served.serving, web.wanted)
    await house.pair(web, pods[0])
    house.keep(await dial(answer.listeners["other"].address))
    await pods[1].accept()


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_a_socket_stays_its_owners_when_its_listener_is_closed(house, protocol):
    sock = house.keep(open_listening(protocol, ANY, freebind=False))
    group = EndpointGroup("shop/web")
    before = house.engine.descriptors.in_use
    for _ in range(2):
        listener = house.dataplane.open_listener(group, protocol, sock, ANY)
        assert house.engine.descriptors.in_use == before + 1
        for _ in range(2):
            house.dataplane.close_listener(listener)
        assert house.engine.descriptors.in_use == before
    assert sock.fileno() >= 0


async def test_a_listener_whose_port_is_taken_leaves_nothing_behind(house):
    before = house.engine.descriptors.in_use
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        with pytest.raises(ListenError):
            house.service(at=SocketAddress(*thief.getsockname()))
    assert house.engine.descriptors.in_use == before


async def test_listeners_leave_half_of_the_descriptors_for_connections(build):
    house = build(Tuning(descriptor_limit=100))
    for _ in range(50):
        house.service()
    with pytest.raises(ShortageError, match="half of the descriptors are listeners already"):
        house.service()


# -- counters ------------------------------------------------------------------


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


# -- the end -----------------------------------------------------------------


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
    await until(lambda: len(house.connections.open) == 2)
    return clients, web


async def test_a_close_leaves_no_descriptor_and_no_timer():
    loop = asyncio.get_running_loop()
    before = open_sockets()
    timers = TimerLoop(loop)
    house = House(Tuning(descriptor_limit=10), timers.clock, timers)
    await busy(house)
    await house.client(house.service(house.endpoint().address))
    await until(lambda: not house.engine.descriptors.is_accepting)
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
