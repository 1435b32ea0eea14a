import socket
import sys

import pytest

from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BATCH
from userspace_proxy.facts import ClientMistake
from userspace_proxy.kernel.listening_sockets import IP_RECVTTL
from userspace_proxy.model import SocketAddress

from .peers import UdpPeer, exchange
from .rig import UNREACHABLE
from .waiters import HOLD, limited, waited
from .waiting import readable, until

IPS = pytest.mark.parametrize("ip", ["127.0.0.1", "::1"])
SIZES = pytest.mark.parametrize("size", [0, 1, 1472, 65507])


async def test_datagrams_dropped_by_a_full_buffer_are_counted(rig):
    pod, service, client = rig.udp_served()
    await exchange(client, pod)
    # The loop doesn't run during these sends, and 200 MB don't fit into any buffer.
    for _ in range(4000):
        client.send(bytes(50_000))
    rig.settle()
    lost = service.group.counters.dropped_datagrams
    assert 0 < lost < 4000
    rig.settle()
    assert service.group.counters.dropped_datagrams == lost


@IPS
@SIZES
async def test_a_datagram_of_any_size_passes_in_both_directions(rig, ip, size):
    pod = rig.udp_peer(ip)
    client = rig.udp_client(rig.udp_service(pod.address, at=ip), ip)
    await exchange(client, pod, bytes(size), bytes(size))


async def test_client_and_endpoint_may_have_different_ip_families(rig):
    pod = rig.udp_peer("::1")
    await exchange(rig.udp_client(rig.udp_service(pod.address)), pod)


@pytest.mark.parametrize(
    ("wildcard", "dialled"),
    [("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "127.0.0.2"), ("0.0.0.0", "127.9.8.7"), ("::", "::1")],
)
async def test_a_reply_has_the_dialled_address_as_its_source(rig, wildcard, dialled):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address, at=wildcard)
    client = rig.udp_peer("::1" if ":" in dialled else "127.0.0.1")
    address = SocketAddress(dialled, dns.address.port)
    client.send_to(b"question", address)
    _, proxy = await pod.receive_from()
    pod.send_to(b"answer", proxy)
    assert await client.receive_from() == (b"answer", address)


async def test_a_client_dialling_two_addresses_has_two_flows(rig):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address, at="0.0.0.0")
    client = rig.udp_peer()
    sources = set()
    for ip in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
        client.send_to(b"question", SocketAddress(ip, dns.address.port))
        sources.add((await pod.receive_from())[1])
    assert len(sources) == len(rig.flows) == 2


async def test_a_listener_that_stops_receiving_still_passes_on_replies(rig):
    pod, dns, client = rig.udp_served()
    proxy = await exchange(client, pod)
    dns.carrier.stop_receiving()
    rig.udp_client(dns).send(b"question")
    pod.send_to(b"answer", proxy)
    assert await client.receive() == b"answer"
    assert len(rig.flows) == 1


async def test_datagrams_of_a_flow_reach_the_same_endpoint(rig):
    pods = [rig.udp_peer() for _ in range(3)]
    dns = rig.udp_service(*(pod.address for pod in pods))
    clients = [rig.udp_client(dns) for _ in pods]
    for _ in range(3):
        for client, pod in zip(clients, pods, strict=True):
            await exchange(client, pod)
    assert dns.group.totals().connections == 3


async def test_all_datagrams_arrive_if_more_than_a_batch_are_sent(rig):
    pod, _, client = rig.udp_served()
    proxy = await exchange(client, pod)
    many = [str(number).encode() for number in range(2 * BATCH + 1)]
    for payload in many:
        client.send(payload)
    assert [await pod.receive() for _ in many] == many
    for payload in many:
        pod.send_to(payload, proxy)
    assert [await client.receive() for _ in many] == many


async def test_a_datagram_too_large_for_the_endpoints_family_does_not_end_its_flow(rig):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address, at="::1")
    client = rig.udp_client(dns, "::1")
    client.send(bytes(65527))
    await exchange(client, pod)
    assert dns.group.counters.dropped_datagrams == 1
    assert dns.group.totals().failures == 0


async def test_an_unsendable_reply_is_dropped(rig):
    pod, dns, client = rig.udp_served()
    proxy = await exchange(client, pod)
    rig.settle()
    sent = dns.group.totals().sent_bytes
    rig.flow.address = ("255.255.255.255", 9)
    pod.send_to(b"answer", proxy)
    await until(lambda: dns.group.counters.dropped_datagrams == 1)
    rig.settle()
    assert dns.group.totals().sent_bytes == sent


class CountedReads:
    """A socket that counts its reads."""

    def __init__(self, sock):
        self._sock = sock
        self.reads = 0

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def recv_into(self, buffer):
        self.reads += 1
        return self._sock.recv_into(buffer)


async def test_each_udp_reply_is_read_by_a_single_system_call(rig):
    pod, _, client = rig.udp_served()
    await exchange(client, pod)
    flow = rig.flow
    flow.sock = CountedReads(flow.sock)
    for _ in range(3):
        await exchange(client, pod)
    assert flow.sock.reads == 3


async def test_a_batch_of_datagrams_is_read_in_two_iterations_of_the_event_loop(rig):
    pod, _, client = rig.udp_served()
    proxy = await exchange(client, pod)
    for _ in range(BATCH):
        client.send(b"question")
        pod.send_to(b"answer", proxy)
    for _ in range(2):
        rig.engine.reactor._dispatch()
    assert len(pod.received()) == len(client.received()) == BATCH


TTL = {
    "127.0.0.1": (socket.IPPROTO_IP, IP_RECVTTL, socket.IP_TTL),
    "::1": (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, socket.IPV6_UNICAST_HOPS),
}


def send_with(client, payload, hops):
    """Send a datagram with this hop limit."""
    level, _receive, send = TTL[client.address.ip]
    client.sock.setsockopt(level, send, hops)
    client.send(payload)


async def hops_of(pod):
    """Return the hop limit with which the next datagram arrives at an endpoint."""
    await readable(pod.sock)
    _, ancillary, _, _ = pod.sock.recvmsg(100, 100)
    ((_, _, value),) = ancillary
    return int.from_bytes(value, sys.byteorder)


@IPS
@pytest.mark.parametrize("at_wildcard", [False, True], ids=["at-an-address", "at-all-addresses"])
async def test_each_datagram_is_sent_with_a_decremented_hop_limit(rig, ip, at_wildcard):
    pod = rig.udp_peer(ip)
    level, receive, _send = TTL[ip]
    pod.sock.setsockopt(level, receive, 1)
    at = {"127.0.0.1": "0.0.0.0", "::1": "::"}[ip] if at_wildcard else ip
    dns = rig.udp_service(pod.address, at=at)
    client = rig.keep(UdpPeer(ip, to=SocketAddress(ip, dns.address.port)))
    for hops in (64, 64, 10, 255, 2):
        send_with(client, b"question", hops)
        assert await hops_of(pod) == hops - 1
    assert len(rig.flows) == 1


async def test_a_datagram_resent_to_another_endpoint_has_the_same_hop_limit(rig):
    pod = rig.udp_peer()
    pod.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    client = rig.udp_client(rig.udp_service(rig.refusing_udp(), pod.address))
    send_with(client, b"question", 10)
    assert await hops_of(pod) == 9


async def test_the_hop_limit_of_a_held_datagram_is_decremented_once(rig):
    dns = rig.udp_service(**HOLD)
    client = rig.udp_client(dns)
    for hops in (64, 9, 1):
        send_with(client, b"question", hops)
    await until(lambda: dns.group.counters.dropped_datagrams, "a dropped datagram")
    pod = rig.udp_peer()
    pod.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    rig.update(dns, pod.address, **HOLD)
    assert [await hops_of(pod), await hops_of(pod)] == [63, 8]
    send_with(client, b"question", 9)
    assert await hops_of(pod) == 8


class CountsTurns:
    """Waits for room at an endpoint, and counts its turns."""

    client_ip = "127.0.0.9"

    def __init__(self):
        self.turns = 0

    def resume(self):
        self.turns += 1

    def end_wait(self, cause):
        raise AssertionError(f"the wait ended early: {cause}")


async def test_a_flow_refused_by_its_endpoint_makes_no_room_for_waiting_flows(rig):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address, **limited(1))
    busy = rig.udp_client(dns)
    await exchange(busy, pod)
    rig.update(dns, pod.address, rig.refusing_udp(), **limited(1))
    waiter = CountsTurns()
    room = dns.group.open_waiting_room(rig.engine.reactor, is_at_limit=True)
    room.wait(waiter, is_at_limit=True)
    rig.udp_client(dns).send(b"question")
    await until(lambda: waited(dns) == 2, "a flow that was refused")
    await exchange(busy, pod)
    # A refusal to a client's own address ejects no endpoint, so the waiting clients would be
    # refused one after the other without a pause.
    assert waiter.turns == 0
    room.left(waiter)


@pytest.mark.parametrize("is_first", [True, False], ids=["of-a-flow", "within-a-flow"])
async def test_a_datagram_with_an_exhausted_hop_limit_is_dropped(rig, caplog, is_first):
    pod, dns, client = rig.udp_served()
    if not is_first:
        await exchange(client, pod)
    send_with(client, b"too far", 1)
    send_with(client, b"also too far", 1)
    send_with(client, b"question", 64)
    assert await pod.receive() == b"question"
    assert dns.group.counters.dropped_datagrams == 2
    mistake = dns.group.client_mistakes[ClientMistake.HOP_LIMIT]
    assert (mistake.part.failures, mistake.part.client) == (2, client.address.ip)
    (line,) = [r for r in caplog.records if "hop limit" in r.getMessage()]
    # Any client can send such a datagram, so it doesn't prove a loop.
    assert line.getMessage() == (
        f"shop/web:http: dropped a datagram from {line.client} that reached its hop limit, "
        "possibly in a loop"
    )
    assert (line.service, line.client) == ("shop/web:http", str(client.address))


async def test_the_hop_limit_ends_a_loop_of_services(rig):
    """Each round is a new flow, because the datagram has a new source port."""
    there, dns = rig.udp_service(UNREACHABLE), rig.udp_service(UNREACHABLE)
    rig.update(dns, there.address)
    rig.update(there, dns.address)
    send_with(rig.udp_client(dns), b"question", 64)
    counters = dns.group.counters, there.group.counters
    await until(lambda: any(one.dropped_datagrams for one in counters))
    assert len(rig.flows) == 63


async def test_the_hop_limit_ends_a_loop_of_existing_flows(rig):
    """This happens if a flow reuses the port of an ended flow that is known as a client."""
    dns = rig.udp_service(UNREACHABLE)
    rig.update(dns, dns.address)
    client = rig.udp_client(dns)
    send_with(client, b"question", 2)
    await until(lambda: dns.group.counters.dropped_datagrams)
    flow = rig.flow
    dns.carrier.flows[flow.sock.getsockname(), flow.key[1]] = flow
    send_with(client, b"question", 64)
    await until(lambda: dns.group.counters.dropped_datagrams == 2)
    assert flow.received_bytes == len(b"question") * 64
    assert len(rig.flows) == 1


async def test_a_flow_counts_as_stalled_while_it_is_open_and_its_replies_have_stopped(
    build, timers
):
    rig = build(Tuning(udp_idle_s=9999), timers.clock, timers)
    pod = rig.udp_peer()
    game = rig.udp_service(pod.address)
    kept, other = rig.udp_client(game), rig.udp_client(game)
    counters = game.group.counters_of(pod.address)

    async def pass_5_s(*, is_answered):
        await exchange(other, pod)
        if is_answered:
            # One byte counts as an answer.
            await exchange(kept, pod, b"m", b"1")
        else:
            kept.send(b"m")
            await pod.receive()
        timers.advance(5)
        rig.settle()

    for _ in range(3):
        await pass_5_s(is_answered=True)
    for stalled in (0, 0, 0, 1, 1):
        await pass_5_s(is_answered=False)
        assert counters.stalled == stalled
    await pass_5_s(is_answered=True)
    assert counters.stalled == 0
    # This silence is three times as long as the previous one.
    for _ in range(16):
        await pass_5_s(is_answered=False)
    assert (counters.stalled, counters.active, counters.unanswered) == (1, 2, 0)
    rig.update(game)
    assert (counters.stalled, counters.active) == (0, 0)
