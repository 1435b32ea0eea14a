"""A data plane in the loop of its plane; test_link.py tests what clients see, with all planes."""

import asyncio
import gc
import socket
import weakref

import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup, Tuning
from userspace_proxy.errors import ListenError, ShortageError
from userspace_proxy.kernel.listening_sockets import open_listening
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import Wanted

from .peers import dial
from .rig import Rig, open_sockets
from .timers import TimerLoop
from .waiting import turns, until

ANY = SocketAddress("127.0.0.1", 0)


async def test_two_listeners_of_a_group_share_one_round_robin_order(rig):
    pods = [rig.endpoint(), rig.endpoint()]
    web = rig.service(*(pod.address for pod in pods))
    web.wanted["other"] = Wanted(Protocol.TCP, (SocketAddress("127.0.0.2", 0),))
    answer = rig.plane.serve(web.served, web.served.serving, web.wanted)
    await rig.pair(web, pods[0])
    rig.keep(await dial(answer.listeners["other"].address))
    await pods[1].accept()


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_closing_a_listener_does_not_close_its_owners_socket(rig, protocol):
    sock = rig.keep(open_listening(protocol, ANY, freebind=False))
    group = EndpointGroup(port_key("shop/web"))
    before = rig.engine.descriptors.in_use
    for _ in range(2):
        listener = rig.dataplane.open_listener(group, protocol, sock, ANY)
        assert rig.engine.descriptors.in_use == before + 1
        for _ in range(2):
            rig.dataplane.close_listener(listener)
        assert rig.engine.descriptors.in_use == before
    assert sock.fileno() >= 0


async def test_a_failed_listen_on_a_port_in_use_keeps_no_descriptor(rig):
    before = rig.engine.descriptors.in_use
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        with pytest.raises(ListenError):
            rig.service(at=SocketAddress(*thief.getsockname()))
    assert rig.engine.descriptors.in_use == before


async def test_listeners_use_at_most_half_of_the_descriptors(build):
    rig = build(Tuning(descriptor_limit=100))
    for _ in range(50):
        rig.service()
    with pytest.raises(ShortageError, match="half of the descriptors are listeners already"):
        rig.service()


async def busy(rig):
    """Open one of each kind of object in a rig; return TCP clients, and the first one's Service."""
    pod, echo = rig.endpoint(), rig.udp_peer()
    web, dns = rig.service(pod.address), rig.udp_service(echo.address)
    clients = [rig.client(web), rig.client(rig.service(rig.silent()))]
    clients = [await client for client in clients]
    await pod.accept()
    asker = rig.udp_client(dns)
    asker.send(b"question")
    await echo.receive()
    rig.service()
    rig.udp_service()
    await until(lambda: len(rig.connections.open) == 2)
    return clients, web


async def test_close_leaves_no_descriptor_and_no_timer():
    loop = asyncio.get_running_loop()
    before = open_sockets()
    timers = TimerLoop(loop)
    rig = Rig(Tuning(descriptor_limit=10), timers.clock, timers)
    await busy(rig)
    await rig.client(rig.service(rig.endpoint().address))
    await until(lambda: not rig.engine.descriptors.is_accepting)
    rig.close()
    assert open_sockets() == before
    assert timers.waiting == 0


async def test_a_drain_that_ends_early_is_reported_once(timed, timers):
    pod = timed.endpoint()
    client, _ = await timed.pair(timed.service(pod.address), pod)
    drained: list[int] = []
    timed.dataplane.drain(10, drained.append)
    client.reset()
    await until(lambda: drained)
    timers.advance(10)
    assert drained == [0]


async def test_a_drain_ends_without_a_report_if_the_data_plane_is_closed(timed, timers):
    pod = timed.endpoint()
    await timed.pair(timed.service(pod.address), pod)
    drained: list[int] = []
    timed.dataplane.drain(10, drained.append)
    timed.dataplane.close()
    timers.advance(10)
    assert drained == []


async def test_a_closed_data_plane_is_garbage_collected():
    rig = Rig()
    await busy(rig)
    rig.close()
    engine = weakref.ref(rig.engine)
    del rig
    asyncio.get_running_loop().set_exception_handler(None)
    await turns(1)
    gc.collect()
    assert engine() is None
