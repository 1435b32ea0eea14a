import asyncio
import contextlib
import socket

import msgspec
import pytest

from tests.netns import Net
from userspace_proxy.dataplane import Tuning
from userspace_proxy.kernel.netlink.sockets import NETLINK_NETFILTER, NETLINK_ROUTE
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import worker, worker_main
from userspace_proxy.plane.adoption import Predecessors
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import HandedOver, Keep, Running, Start, ToWorker
from userspace_proxy.plane.rendezvous import connect_to_workers, open_rendezvous

from ..dataplane.peers import TcpEndpoint, UdpPeer, address_of, dial
from ..dataplane.waiting import until

LABEL = "test"
TCP, UDP = Protocol.TCP, Protocol.UDP


def netlink_socket(protocol=NETLINK_NETFILTER):
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)


@pytest.fixture
async def orphan(idle):
    """A worker that can outlive its control process, with a socket that it keeps."""
    with open_rendezvous(LABEL) as rendezvous, netlink_socket() as kept:
        idle.send(Start(3, Tuning(), {}), rendezvous)
        idle.send(Keep("a table"), kept)
        await idle.hear(Running)
    return idle


async def adopt(control):
    """Have the control process die, and adopt its worker."""
    control.channel.close()
    predecessors = control.keep(Predecessors(asyncio.get_running_loop(), connect_to_workers(LABEL)))
    assert len(predecessors) == 1
    return predecessors, await predecessors.adopt()


async def test_an_orphan_serves_and_hands_over_its_sockets(orphan):
    pod = orphan.keep(TcpEndpoint())
    at = orphan.serve(pod.address)
    await orphan.report()
    client, server = await orphan.pair(at, pod)
    predecessors, count = await adopt(orphan)
    assert count == 1
    (sock,) = map(orphan.keep, predecessors.take(TCP, at))
    assert address_of(sock) == at
    assert predecessors.take(TCP, at) == []
    assert list(predecessors.kept) == ["a table"]
    # It still accepts clients; open connections continue.
    await orphan.pair(at, pod)
    client.sock.send(b"still here")
    assert await server.read_exactly(10) == b"still here"


async def test_pins_of_clients_are_handed_over_in_parts(orphan, monkeypatch):
    monkeypatch.setattr(worker, "_PINS_A_MESSAGE", 1)
    pod = orphan.keep(TcpEndpoint())
    at = orphan.serve(pod.address, affinity_timeout_s=60)
    for client in ("127.0.0.2", "127.0.0.3"):
        orphan.keep(await dial(at, source=client))
        orphan.keep(await pod.accept())
    predecessors, _ = await adopt(orphan)
    parts = predecessors.take_pins("shop/web:http")
    pins = [pin for part in parts for pin in part.pins]
    assert [len(part.pins) for part in parts] == [1, 1]
    assert [(client, endpoint) for client, endpoint, _ in pins] == [
        ("127.0.0.2", pod.address),
        ("127.0.0.3", pod.address),
    ]
    assert predecessors.take_pins("shop/web:http") == []


async def test_a_drain_ends_an_orphan_with_its_last_connection(orphan):
    pod = orphan.keep(TcpEndpoint())
    at = orphan.serve(pod.address)
    client, server = await orphan.pair(at, pod)
    predecessors, _ = await adopt(orphan)
    (sock,) = map(orphan.keep, predecessors.take(TCP, at))
    orphan.sock.close()
    predecessors.drain(60.0)
    waiting = orphan.keep(await dial(at))
    # Its listener is closed, but the queue belongs to all copies of the socket.
    await until(lambda: not orphan.main._worker.listening(), "a drain")
    sock.setblocking(False)
    accepted = []

    def is_queued():
        try:
            accepted.append(orphan.keep(sock.accept()[0]))
        except BlockingIOError:
            return False
        return True

    await until(is_queued, "the client in the queue")
    assert accepted[0].getpeername() == waiting.sock.getsockname()
    assert not orphan.main.ended.done()
    for peer in (client, server):
        peer.close()
    assert await orphan.main.ended == 0


async def test_an_orphan_ends_by_itself_unless_a_successor_is_connected(orphan, monkeypatch):
    monkeypatch.setattr(worker_main, "ORPHAN_S", 0.05)
    predecessors, _ = await adopt(orphan)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 0.1
    await until(lambda: loop.time() > until_s, "twice that time")
    assert not orphan.main.ended.done()
    predecessors.close()
    assert await orphan.main.ended == 1


async def test_udp_replies_still_arrive_while_an_orphan_drains(orphan):
    server = orphan.keep(UdpPeer())
    at = orphan.serve(server.address, protocol=UDP)
    client = orphan.keep(UdpPeer())
    client.sock.sendto(b"before", at)
    _, flow = await server.receive_from()
    predecessors, count = await adopt(orphan)
    assert count == 1
    predecessors.drain(60.0)
    await until(lambda: orphan.main._is_draining, "a drain")
    server.sock.sendto(b"after", flow)
    assert await client.receive_from() == (b"after", at)


async def test_an_orphan_outlives_a_successor_that_dies(orphan):
    pod = orphan.keep(TcpEndpoint())
    orphan.serve(pod.address)
    await orphan.report()
    first, _ = await adopt(orphan)
    first.close()
    second, count = await adopt(orphan)
    assert count == 1
    second.end()
    assert await orphan.main.ended == 0


async def test_an_orphan_waits_for_a_time_only(orphan, monkeypatch):
    monkeypatch.setattr(worker_main, "ORPHAN_S", 0.01)
    orphan.channel.close()
    assert await orphan.main.ended == 1


class Renamed(msgspec.Struct, tag=True, array_like=True):
    """A message of another version."""

    number: int


class Compromised:
    """A worker that hands over what it likes; what a worker sends is examined."""

    def __init__(self, keep):
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.predecessors = keep(Predecessors(loop, [ours]))
        self.channel = keep(
            Channel(
                loop,
                theirs,
                reads=ToWorker,
                receive=lambda *_: None,
                lost=lambda _malformed: None,
            )
        )

    def hand_over(self, *socks, kept=(), is_last=False):
        self.channel.send(HandedOver(0, list(kept), is_last=is_last), *socks)


@pytest.fixture
def elsewhere():
    net = Net("elsewhere")
    yield net
    net.close()


async def test_only_sockets_that_serve_here_are_taken(idle, elsewhere, caplog):
    worker = Compromised(idle.keep)
    idle.channel.close()
    with contextlib.ExitStack() as stack:

        def opened(*args):
            sock = stack.enter_context(socket.socket(*args))
            if sock.family == socket.AF_INET:
                sock.bind(("127.0.0.1", 0))
            return sock

        good = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        at = SocketAddress(*good.getsockname())
        bound, unix = opened(), opened(socket.AF_UNIX)
        lite = opened(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDPLITE)
        with elsewhere:
            far = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        worker.hand_over(bound, unix, lite, far, good)
        worker.hand_over(good, is_last=True)
        assert await worker.predecessors.adopt() == 1
        assert [address_of(idle.keep(s)) for s in worker.predecessors.take(TCP, at)] == [at]
    (line,) = (one for one in caplog.records if "no worker is given" in one.message)
    assert line.sockets == 5


async def test_of_kept_sockets_only_those_to_this_nodes_nftables_are_taken(idle, elsewhere):
    worker = Compromised(idle.keep)
    idle.channel.close()
    with contextlib.ExitStack() as stack:
        fake, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with elsewhere:
            far = netlink_socket()
        socks = [fake, netlink_socket(NETLINK_ROUTE), far, netlink_socket()]
        for sock in (*socks, other):
            stack.enter_context(sock)
        worker.hand_over(*socks, kept=["fake", "route", "far", "good"], is_last=True)
        await worker.predecessors.adopt()
        assert list(worker.predecessors.kept) == ["good"]


async def test_messages_of_another_version_are_skipped_with_one_log_line(idle, caplog):
    worker = Compromised(idle.keep)
    idle.channel.close()
    with socket.create_server(("127.0.0.1", 0)) as good:
        for _ in range(2):
            worker.channel.send(Renamed(1), good)
        worker.hand_over(good, is_last=True)
        assert await worker.predecessors.adopt() == 1
    (line,) = (one for one in caplog.records if "this version doesn't know" in one.message)
    assert line.cause == "Invalid value 'Renamed' - at `$[0]`"


async def test_a_worker_that_is_silent_is_left_alone(idle):
    ours, theirs = socket.socketpair()
    idle.keep(theirs)
    predecessors = idle.keep(Predecessors(asyncio.get_running_loop(), [ours]))
    assert await predecessors.adopt(0.01) == 0
