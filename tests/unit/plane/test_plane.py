"""How each plane applies a Serving; test_link.py has the common guarantees."""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import Tuning
from userspace_proxy.errors import ShortageError
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane
from userspace_proxy.plane.denials import DropReason
from userspace_proxy.plane.messages import Counted, Keep, Preserve, Status

from ..dataplane.peers import Peer, UdpPeer, dial
from ..dataplane.waiting import until
from ..port_numbers import free_port
from .planes import TCP, asked, is_dropped, is_refused, place_of, serves
from .reports import group_report

ALICE, BOB = "127.0.0.2", "127.0.1.3"
ALICE_ALONE, BOB_ALONE = [f"{ALICE}/32"], [f"{BOB}/32"]
BOTH = pytest.mark.parametrize("protocol", list(Protocol))
# All tests of the module share one loop, which the workers belong to.
pytestmark = pytest.mark.asyncio(loop_scope="module")


def pods_of(rig, protocol, count=2):
    return [rig.endpoint() if protocol is TCP else rig.udp_peer() for _ in range(count)]


async def test_a_service_too_large_for_a_worker_is_rejected_and_other_services_are_served(rig):
    (pod,) = pods_of(rig, TCP, 1)
    web, other = rig.service(pod.address), rig.service(pod.address)
    endpoints = tuple(SocketAddress(f"2001:db8::{n:04x}", 8080) for n in range(60_000))
    served = Serving(endpoints, outside=endpoints)
    answer = rig.plane.serve(web.served, served, web.wanted)
    (error,) = answer.errors.values()
    assert "a worker process takes 2,621,440" in str(error)
    with pytest.raises(ConnectionRefusedError):
        await dial(web.address)
    assert await serves(rig.keep(await dial(other.address)), pod)
    rig.update(web, pod.address)
    assert await serves(rig.keep(await dial(web.address)), pod)


@BOTH
async def test_packets_of_denied_clients_are_dropped_from_the_start_and_counted(rig, protocol):
    pods = pods_of(rig, protocol, 1)
    web = rig.service(pods[0].address, protocol=protocol, at="0.0.0.0", admits=ALICE_ALONE)
    assert web.listener.is_serving
    await all_serve(rig)
    assert await is_dropped(rig, web, BOB)
    await rig.plane.refresh()
    assert web.served.counters.denied >= 1
    assert web.served.counters.dropped_datagrams == 0
    assert web.served.denials.by[DropReason.RANGES].packets >= 1
    assert await place_of(rig, web, pods, ALICE) == 0


async def all_serve(rig):
    """Wait until all workers are running and have applied their messages."""
    await until(lambda: rig.plane.has_all_workers)
    await rig.plane.refresh()


async def test_drops_before_a_listeners_move_are_counted_for_the_former_group(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address, at="0.0.0.0", admits=ALICE_ALONE)
    await all_serve(rig)
    assert await is_dropped(rig, web, BOB)
    other = rig.plane.open_group(port_key("shop/other"))
    rig.plane.serve(other, Serving((pod.address,)), web.wanted)
    await rig.plane.refresh()
    assert web.served.counters.denied >= 1
    assert (other.counters.denied, other.denials.by[DropReason.RANGES].packets) == (0, 0)


@BOTH
async def test_a_port_drops_serves_or_refuses_clients_as_its_service_changes(rig, protocol):
    pods = pods_of(rig, protocol, 1)
    web = rig.service(protocol=protocol, at="0.0.0.0", admits=())
    for _ in range(2):
        assert web.listener.is_serving
        assert await is_dropped(rig, web, ALICE)
        rig.update(web, pods[0].address)
        assert await place_of(rig, web, pods, ALICE) == 0
        rig.update(web, admits=())
    rig.update(web)
    await refuses(rig, web)
    rig.update(web, admits=())
    assert await is_dropped(rig, web, ALICE)


async def refuses(rig, service):
    """Wait until a new client is refused: immediately, or after workers closed their sockets."""
    assert not service.listener.is_serving
    to = SocketAddress("127.0.0.1", service.address.port)
    if service.listener.protocol is TCP:
        with pytest.raises(ConnectionRefusedError):
            await dial(to, source=ALICE)
    else:
        assert await is_refused(rig.keep(UdpPeer(ALICE, to=to)))


async def test_source_ranges_change_while_open_connections_continue(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address, at="0.0.0.0", admits=ALICE_ALONE)
    to = SocketAddress("127.0.0.1", web.address.port)
    client = rig.keep(await dial(to, source=ALICE))
    server = await pod.accept()
    rig.update(web, pod.address, admits=BOB_ALONE)
    assert await is_dropped(rig, web, ALICE)
    assert await serves(rig.keep(await dial(to, source=BOB)), pod)
    await client.send(b"still here")
    assert await server.read() == b"still here"
    rig.update(web, pod.address)
    assert await serves(rig.keep(await dial(to, source=ALICE)), pod)


async def test_datagrams_of_a_client_no_longer_admitted_reach_no_endpoint(rig):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address)
    alice, bob = rig.udp_client(dns, ALICE), rig.udp_client(dns, BOB)
    for client in (alice, bob):
        assert await asked(client, pod) == b"answer"
    rig.update(dns, pod.address, admits=BOB_ALONE)
    alice.send(b"from Alice")
    bob.send(b"from Bob")
    heard = []
    await until(lambda: heard.extend(pod.received()) or b"from Bob" in heard)
    assert b"from Alice" not in heard


@BOTH
async def test_too_many_source_ranges_are_an_error_and_clients_are_refused(rig, protocol):
    too_many = [f"10.{n // 128}.{n % 128 * 2}.0/24" for n in range(2000)]
    pods = pods_of(rig, protocol, 1)
    web = rig.service(pods[0].address, protocol=protocol, at="0.0.0.0", admits=ALICE_ALONE)
    for _ in range(2):
        with pytest.raises(ShortageError, match="too many source ranges for one socket"):
            rig.update(web, pods[0].address, admits=too_many)
        await refuses(rig, web)
    rig.update(web, pods[0].address)
    assert await place_of(rig, web, pods, BOB) == 0
    with pytest.raises(ShortageError, match="cannot limit which clients reach"):
        rig.service(pods[0].address, protocol=protocol, admits=too_many)


@BOTH
async def test_internal_and_external_clients_reach_different_endpoints(rig, protocol):
    pods = pods_of(rig, protocol)
    inner, outer = (pod.address for pod in pods)
    split = {"outside": [outer], "inside": ALICE_ALONE}
    web = rig.service(inner, protocol=protocol, at="0.0.0.0", **split)
    assert [await place_of(rig, web, pods, client) for client in (ALICE, BOB) * 2] == [0, 1] * 2
    rig.update(web, inner, outside=[outer], inside=BOB_ALONE)
    await rig.plane.refresh()
    assert [await place_of(rig, web, pods, client) for client in (ALICE, BOB)] == [1, 0]
    rig.update(web, inner)
    await rig.plane.refresh()
    assert [await place_of(rig, web, pods, client) for client in (ALICE, BOB)] == [0, 0]


async def test_inside_clients_are_reset_if_only_outside_clients_have_endpoints(rig):
    pod = rig.endpoint()
    web = rig.service(outside=[pod.address], inside=["127.0.0.1/32"])
    assert web.listener.is_serving
    assert await rig.resets_a_client(web)
    assert await serves(rig.keep(await dial(web.address, source=BOB)), pod)


async def test_a_drain_returns_the_number_of_reset_connections(own_rig):
    rig, pods = own_rig, [own_rig.endpoint(), own_rig.endpoint()]
    services = [rig.service(pod.address) for pod in pods]
    pairs = []
    for web, pod in zip(services * 2, pods * 2, strict=True):
        pairs.append((await rig.client(web), await pod.accept()))
    for web in services:
        web.close()
    pairs.pop()[0].close()
    assert await rig.plane.drain(0.2) in (3, 4)
    for client, server in pairs:
        assert await client.was_reset()
        assert await server.was_reset()


async def test_a_drain_waits_for_connections_to_finish(own_rig):
    rig, pod = own_rig, own_rig.endpoint()
    web = rig.service(pod.address)
    pairs = [(await rig.client(web), await pod.accept()) for _ in range(3)]
    web.close()
    draining = asyncio.create_task(rig.plane.drain(60))
    for client, server in pairs:
        await client.send(b"goodbye")
        assert await server.read() == b"goodbye"
        assert not draining.done()
        client.close()
        server.close()
    assert await draining == 0


async def test_idle_waits_for_the_last_connection_while_new_clients_are_accepted(own_rig):
    rig, pod = own_rig, own_rig.endpoint()
    web = rig.service(pod.address)
    pairs = [(await rig.client(web), await pod.accept())]
    idle = asyncio.create_task(rig.plane.idle(60))
    await rig.plane.refresh()
    pairs.append((await rig.client(web), await pod.accept()))
    for peers in pairs:
        assert not idle.done()
        for peer in peers:
            peer.close()
    await idle
    assert rig.plane.state().connections == 0
    web.close()


async def test_idle_returns_after_its_timeout(own_rig):
    rig, pod = own_rig, own_rig.endpoint()
    web = rig.service(pod.address)
    client, _ = await rig.client(web), await pod.accept()
    await rig.plane.idle(0.01)
    await rig.plane.refresh()
    assert rig.plane.state().connections == 1
    client.close()
    web.close()


async def test_close_resets_open_connections_and_refuses_new_clients(own_rig):
    rig, pod = own_rig, own_rig.endpoint()
    web, dns = rig.service(pod.address), rig.udp_service(rig.udp_peer().address)
    client = await rig.client(web)
    await pod.accept()
    for _ in range(2):
        rig.plane.close()
    assert await client.was_reset()
    with pytest.raises(ConnectionRefusedError):
        await dial(web.address)
    rig.keep(UdpPeer(port=dns.address.port))
    for service in (web, dns):
        service.close()


async def test_close_resets_clients_in_the_accept_queue(own_rig):
    web = own_rig.service(own_rig.silent())
    waiting = own_rig.keep(Peer(socket.socket()))
    waiting.sock.connect_ex(web.address)
    own_rig.plane.close()
    assert await waiting.was_reset()


async def test_pipes_are_divided_among_workers():
    loop = asyncio.get_running_loop()
    tuning = Plane(loop, 4, Tuning(max_pipes=10))._workers[0].tuning
    assert (tuning.max_pipes, tuning.processes) == (3, 4)
    assert Plane(loop, 64)._workers[0].tuning.max_pipes == 1


@pytest.mark.parametrize("is_short", [False, True])
async def test_plane_state_has_the_memory_nearest_its_limit_and_all_problems(is_short):
    plane = Plane(asyncio.get_running_loop(), 3)
    figures = [(150, 400, is_short, True), (95, 100, False, False), (0, 0, False, False)]
    for worker, (used, limit, short, was_short) in zip(plane._workers, figures, strict=True):
        worker.is_running, worker.problem = True, str(limit)
        worker.status = Status(
            is_accepting=not used,
            memory_bytes=used,
            memory_limit_bytes=limit,
            is_short_of_memory=short,
            was_short_of_memory=was_short,
        )
    assert plane.state().memory == (95, 100, is_short, True)
    assert not plane.state().is_accepting
    assert plane.state().problems == ("400", "100", "0")


async def test_a_report_about_a_removed_group_counts_in_the_totals():
    plane = Plane(asyncio.get_running_loop(), 1)
    plane.receive(0, Counted(1, [group_report(refused=3)], Status()))
    assert plane.state().totals.counters.refused == 3


async def test_a_plane_without_processes_accepts_sockets_to_keep():
    plane = Plane(asyncio.get_running_loop(), None, Tuning())
    plane.start()
    with socket.socket() as table:
        plane.keep("table", table)
    plane.close()


async def test_a_restarted_worker_gets_the_current_networks_and_kept_sockets():
    plane, sent = Plane(asyncio.get_running_loop(), 2), []
    link = SimpleNamespace(send=lambda message, *socks: sent.append((message, *socks)))
    plane._workers[1].link = link
    with socket.socket() as former, socket.socket() as table:
        for kept in (former, table):
            plane.keep("table", kept)
        plane.preserve({"10.1.0.0/24": 1, "10.2.0.0/24": 2})
        plane.preserve({"10.1.0.0/24": 3})
        assert sent[3:] == [(Preserve(True, ["10.2.0.0/24"], {"10.1.0.0/24": 3}),)]
        sent.clear()
        plane.worker_began(1)
        assert sent == [(Keep("table"), table), (Preserve(True, [], {"10.1.0.0/24": 3}),)]


async def test_closing_recovered_ports_resets_the_clients_that_wait_on_them():
    plane = Plane(asyncio.get_running_loop())
    at = SocketAddress("127.0.0.1", free_port())
    plane.recover([(TCP, at)], transparent=False)
    assert plane.has_recovered
    with contextlib.closing(await dial(at)) as client:
        plane.close_recovered()
        assert await client.was_reset()
    assert not plane.has_recovered
    plane.close()
