"""The guarantees of every plane, in whichever loop or process it carries the traffic."""

import socket

import pytest

from tests.port_keys import port_key
from userspace_proxy.model import Handling, Hold, Protocol, SocketAddress

from ..dataplane.peers import Peer, UdpPeer, dial
from .planes import TCP, asked, is_refused, serves

# All tests of the module share one loop, which the workers belong to.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ALICE, BOB = "127.0.0.2", "127.0.0.3"


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
async def test_tcp_clients_are_served_once_serve_returns(rig, ip):
    pod = rig.endpoint()
    web = rig.service(pod.address, at=ip)
    assert web.listener.is_serving
    assert await serves(await rig.client(web), pod)


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1", "0.0.0.0"])
async def test_udp_clients_are_served_once_serve_returns(rig, ip):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address, at=ip)
    at = "127.0.0.1" if ip == "0.0.0.0" else ip
    client = rig.keep(UdpPeer(at, to=SocketAddress(at, dns.address.port)))
    client.send(b"question")
    payload, proxy = await pod.receive_from()
    pod.send_to(b"answer", proxy)
    assert (payload, await client.receive()) == (b"question", b"answer")


def hand_over(rig, service, *endpoints, **others):
    """Serve a new group on a Service's listener, and close the old group."""
    old, service.served = service.served, rig.plane.open_group(port_key("shop/web:other"))
    service.group = service.served
    rig.update(service, *endpoints, **others)
    rig.plane.close_group(old)


async def test_no_client_is_refused_while_a_listener_is_handed_over(rig):
    pod, web = rig.served()
    for _ in range(20):
        clients = [rig.keep(Peer(socket.socket())) for _ in range(3)]
        for client in clients:
            client.sock.connect_ex(web.address)
        hand_over(rig, web, pod.address)
        for client in clients:
            await client.send(b"question")
        for _ in clients:
            server = await pod.accept()
            assert await server.read() == b"question"


async def test_after_a_handover_only_new_connections_use_the_other_group(rig):
    old, new = rig.endpoint(), rig.endpoint()
    web = rig.service(old.address)
    client, server = await rig.pair(web, old)
    hand_over(rig, web, new.address)

    async def is_handed_over():
        rig.keep(await dial(web.address))
        await rig.plane.refresh()
        return new.accept_now() is not None

    while not await is_handed_over():
        pass
    await client.send(b"still here")
    assert await server.read() == b"still here"


async def test_a_udp_client_reaches_the_new_group_after_its_listener_is_handed_over(rig):
    old, new = rig.udp_peer(), rig.udp_peer()
    dns = rig.udp_service(old.address)
    client = rig.udp_client(dns)
    assert await asked(client, old) == b"answer"
    hand_over(rig, dns, new.address)
    assert await asked(client, new) == b"answer"


async def test_a_listener_in_a_group_that_admits_no_client_drops_packets_until_handed_back(rig):
    pod, web = rig.served()
    hand_over(rig, web, pod.address, admits=())
    client = rig.keep(Peer(socket.socket()))
    client.sock.connect_ex(web.address)
    hand_over(rig, web, pod.address)
    # The client's SYN was dropped; the kernel retransmits it after a second.
    assert await serves(client, pod)


async def test_a_tcp_port_serves_while_it_has_an_endpoint_and_refuses_otherwise(rig):
    web, pod = rig.service(), rig.endpoint()
    address = web.address
    for _ in range(2):
        assert not web.listener.is_serving
        with pytest.raises(ConnectionRefusedError):
            await rig.client(web)
        rig.update(web, pod.address)
        assert await serves(await rig.client(web), pod)
        rig.update(web)
    assert web.address == address


async def test_a_udp_port_that_briefly_refuses_serves_again(rig):
    pod, dns, client = rig.udp_served()
    for _ in range(20):
        rig.update(dns)
        rig.update(dns, pod.address)
    assert await asked(client, pod) == b"answer"
    rig.update(dns)
    assert await is_refused(client)


async def test_a_change_of_endpoints_affects_only_new_connections(rig):
    old, new = rig.endpoint(), rig.endpoint()
    web = rig.service(old.address)
    client = await rig.client(web)
    server = await old.accept()
    rig.update(web, new.address)
    # Workers answer only after they have applied the change.
    await rig.plane.refresh()
    assert await serves(await rig.client(web), new)
    await client.send(b"still here")
    assert await server.read() == b"still here"


async def test_a_closed_listener_refuses_and_its_connections_continue(rig):
    pod, web = rig.served()
    client = await rig.client(web)
    server = await pod.accept()
    for _ in range(2):
        web.close()
    with pytest.raises(ConnectionRefusedError):
        await dial(web.address)
    await client.send(b"still here")
    assert await server.read() == b"still here"


async def test_a_closed_udp_listener_refuses_datagrams(rig):
    pod, dns, client = rig.udp_served()
    assert await asked(client, pod) == b"answer"
    dns.close()
    assert await is_refused(client)


@pytest.mark.parametrize("is_refusing", [False, True], ids=["serving", "refusing"])
@pytest.mark.parametrize("protocol", list(Protocol))
async def test_a_closed_services_port_can_be_reused_immediately(rig, protocol, is_refusing):
    """For example, a Service is deleted and created again with the same address."""
    pods = [rig.endpoint() if protocol is TCP else rig.udp_peer() for _ in range(2)]
    old = rig.service(pods[0].address, protocol=protocol)
    if is_refusing:
        rig.update(old)
    old.close()
    rig.service(pods[1].address, protocol=protocol, at=old.address)
    if protocol is TCP:
        assert await serves(await rig.client(old), pods[1])
    else:
        assert await asked(rig.udp_client(old), pods[1]) == b"answer"


async def test_tcp_counters_equal_the_transferred_bytes_after_a_refresh(rig):
    pod, web = rig.served()
    for number in range(1, 4):
        client = await rig.client(web)
        server = await pod.accept()
        await client.send(b"12345")
        assert await server.read_exactly(5) == b"12345"
        await server.send(b"12")
        assert await client.read_exactly(2) == b"12"
        totals = await rig.totals(web)
        assert (totals.connections, totals.active) == (number, number)
        assert (totals.received_bytes, totals.sent_bytes) == (5 * number, 2 * number)
    assert web.group.counters_of(pod.address).connections == 3


async def test_udp_counters_equal_the_transferred_bytes_after_a_refresh(rig):
    pod, dns, client = rig.udp_served()
    client.send(b"12345")
    _, proxy = await pod.receive_from()
    pod.send_to(b"12", proxy)
    assert await client.receive() == b"12"
    totals = await rig.totals(dns)
    assert (totals.connections, totals.active) == (1, 1)
    assert (totals.received_bytes, totals.sent_bytes) == (5, 2)


async def test_the_state_of_a_plane_contains_the_number_of_open_descriptors(rig):
    await rig.plane.refresh()
    before = rig.plane.state()
    assert before.is_accepting
    assert 0 < before.descriptors + 1000 <= before.descriptor_limit
    pod, web = rig.served()
    assert await serves(await rig.client(web), pod)
    await rig.plane.refresh()
    assert rig.plane.state().descriptors >= before.descriptors + 3


@pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
async def test_with_hold_a_connection_waits_for_a_usable_endpoint(rig, ip):
    hold = {"handling": Handling(hold=Hold(60))}
    web = rig.service(at=ip, **hold)
    client = await rig.client(web)
    await client.send(b"early")
    assert web.listener.is_serving
    await waits(rig, web, 1)
    pod = rig.endpoint(ip)
    rig.update(web, pod.address, **hold)
    assert await (await pod.accept()).read() == b"early"
    await waits(rig, web, 0)


async def waits(rig, service, clients):
    """Wait until this many clients wait."""
    while True:
        await rig.plane.refresh()
        if service.served.waiting(0.0).clients == clients:
            return
