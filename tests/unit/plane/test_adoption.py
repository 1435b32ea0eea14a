import asyncio
import contextlib
import socket
from pathlib import Path

import msgspec
import pytest

from tests.descriptors import descriptors_left
from tests.netns import Net
from tests.port_keys import port_key
from userspace_proxy.dataplane import Tuning
from userspace_proxy.kernel import net_admin_proof
from userspace_proxy.kernel.listening_sockets import open_listening
from userspace_proxy.kernel.netlink.sockets import NETLINK_NETFILTER, NETLINK_ROUTE
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Plane, adoption, worker_main
from userspace_proxy.plane import worker as worker_module
from userspace_proxy.plane.adoption import PreviousWorkers
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import (
    AffinityEntries,
    AffinityEntriesSent,
    Drain,
    HandOver,
    Keep,
    Logged,
    OpenListener,
    Prove,
    Report,
    Running,
    Start,
    ToWorker,
)
from userspace_proxy.plane.worker_sockets import connect_to_workers, open_worker_socket

from ..dataplane.limits import MIB
from ..dataplane.peers import TcpEndpoint, UdpPeer, address_of, dial
from ..dataplane.waiting import turns, until
from .compromised import Compromised, next_at
from .control import GROUP, LISTENER

LABEL = "test"
TCP, UDP = Protocol.TCP, Protocol.UDP


def netlink_socket(protocol=NETLINK_NETFILTER):
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)


@pytest.fixture
async def orphan(idle):
    """A worker that can outlive its control process, and keeps a socket for its successor."""
    with open_worker_socket(LABEL) as worker_socket, netlink_socket() as kept:
        idle.send(Start(3, Tuning(), {}), worker_socket, *worker_socket.name_proofs)
        idle.send(Keep("a table"), kept)
        await idle.hear(Running)
    return idle


async def adopt(control):
    """Close the control process's channel; return the adopted worker, and its number of sockets."""
    control.channel.close()
    previous_workers = control.keep(
        PreviousWorkers(asyncio.get_running_loop(), connect_to_workers(LABEL))
    )
    assert len(previous_workers) == 1
    return previous_workers, await previous_workers.adopt()


async def test_an_orphan_serves_and_hands_over_its_sockets(orphan):
    pod = orphan.keep(TcpEndpoint())
    at = orphan.serve(pod.address)
    await orphan.report()
    client, server = await orphan.pair(at, pod)
    previous_workers, count = await adopt(orphan)
    assert count == 1
    (sock,) = map(orphan.keep, previous_workers.take(TCP, at))
    assert address_of(sock) == at
    assert previous_workers.take(TCP, at) == []
    assert list(previous_workers.kept) == ["a table"]
    # The previous worker still accepts clients; open connections continue.
    await orphan.pair(at, pod)
    client.sock.send(b"still here")
    assert await server.read_exactly(10) == b"still here"


async def test_affinity_entries_are_handed_over_in_parts(orphan, monkeypatch):
    monkeypatch.setattr("userspace_proxy.plane.worker._ENTRIES_A_MESSAGE", 1)
    pod = orphan.keep(TcpEndpoint())
    at = orphan.serve(pod.address, affinity_timeout_s=60)
    for client in ("127.0.0.2", "127.0.0.3"):
        orphan.keep(await dial(at, source=client))
        orphan.keep(await pod.accept())
    previous_workers, _ = await adopt(orphan)
    await previous_workers.all_entries()
    parts = previous_workers.take_entries("shop/web:http")
    entries = [entry for part in parts for entry in part.entries]
    assert [len(part.entries) for part in parts] == [1, 1]
    assert [(client, endpoint) for client, endpoint, _ in entries] == [
        ("127.0.0.3", pod.address),
        ("127.0.0.2", pod.address),
    ]
    assert previous_workers.take_entries("shop/web:http") == []


PINS = AffinityEntries("shop/web:http", [("203.0.113.1", SocketAddress("192.0.2.1", 80), 1.0)])


@pytest.fixture
async def worker(idle):
    """A worker of the previous control process, which has exited."""
    idle.channel.close()
    return Compromised(idle.keep)


async def test_affinity_entries_that_arrive_after_adoption_are_passed_on(worker):
    late = []
    worker.previous_workers.on_entries = late.append
    worker.hand_over(is_last=True)
    assert await worker.previous_workers.adopt() == 0
    assert worker.previous_workers.take_entries(PINS.label) == []
    other = AffinityEntries("shop/other", PINS.entries)
    for message in (PINS, other, AffinityEntriesSent()):
        worker.channel.send(message)
    await worker.previous_workers.all_entries(60.0)
    assert late == [PINS]
    assert worker.previous_workers.take_entries("shop/other") == [other]


async def test_a_new_group_takes_over_affinity_entries(worker):
    worker.hand_over(is_last=True)
    for message in (PINS, AffinityEntriesSent()):
        worker.channel.send(message)
    await worker.previous_workers.adopt()
    await worker.previous_workers.all_entries(60.0)
    loop, ((client, pod, _),) = asyncio.get_running_loop(), PINS.entries
    with contextlib.closing(Plane(loop, previous_workers=worker.previous_workers)) as plane:
        plane.serve(plane.open_group(port_key(PINS.label)), Serving((pod,), 60), {})
        (taken,) = plane._local._worker.entries()
    assert [entry[:2] for entry in taken.entries] == [(client, pod)]


@pytest.mark.parametrize("index", [1, 2], ids=["of-two", "of-three-of-which-one-exited"])
async def test_adopted_sockets_are_in_the_order_of_worker_indexes(idle, worker, index):
    first = idle.keep(socket.create_server(("127.0.0.1", 0), reuse_port=True))
    at = SocketAddress(*first.getsockname())
    second = idle.keep(socket.create_server((at.ip, at.port), reuse_port=True))
    # The sender is the last worker, which substituted for the first one.
    worker.hand_over(second, worker=index)
    worker.hand_over(first, worker=0, is_last=True)
    assert await worker.previous_workers.adopt() == 2
    taken = [idle.keep(sock) for sock in worker.previous_workers.take(TCP, at)]
    assert [adoption._cookie(sock) for sock in taken] == [
        adoption._cookie(sock) for sock in (first, second)
    ]


def shared(keep, count):
    """Return sockets that share a port, and that port's address."""
    at, socks = ("127.0.0.1", 0), []
    for _ in range(count):
        socks.append(keep(socket.create_server(at, reuse_port=True)))
        at = socks[0].getsockname()
    return socks, SocketAddress(*at)


@pytest.mark.parametrize("place", range(3))
async def test_the_index_of_a_worker_that_has_not_handed_over_stays_empty(idle, place):
    loop, ends = asyncio.get_running_loop(), [socket.socketpair() for _ in range(2)]
    previous_workers = idle.keep(PreviousWorkers(loop, [ours for ours, _ in ends]))
    late, worker = (Compromised(idle.keep, previous_workers, theirs) for _, theirs in ends)
    idle.channel.close()
    socks, at = shared(idle.keep, 3)
    for index in {0, 1, 2} - {place}:
        worker.hand_over(socks[index], worker=index)
    worker.hand_over(is_last=True)
    await until(previous_workers._workers[1].handed_over.done)
    assert await previous_workers.adopt(0.0) == 2
    taken = previous_workers.take(TCP, at)
    assert late.got == [HandOver()]
    assert [sock and adoption._cookie(idle.keep(sock)) for sock in taken] == [
        None if index == place else adoption._cookie(sock) for index, sock in enumerate(socks)
    ]


async def test_affinity_entries_after_the_end_marker_are_ignored(worker):
    worker.hand_over(is_last=True)
    for message in (AffinityEntriesSent(), PINS):
        worker.channel.send(message)
    await worker.previous_workers.adopt()
    await worker.previous_workers.all_entries(60.0)
    assert worker.previous_workers.take_entries(PINS.label) == []


async def test_adoption_stops_waiting_for_affinity_entries_after_a_timeout(monkeypatch, worker):
    monkeypatch.setattr(adoption, "PINS_S", 0.05)
    worker.hand_over(is_last=True)
    await worker.previous_workers.adopt()
    await worker.previous_workers.all_entries(60.0)
    worker.previous_workers.drain(5.0)
    await until(lambda: worker.got == [HandOver(), Drain(5.0)], "a drain")


async def test_a_drain_ends_an_orphan_with_its_last_connection(orphan):
    pod = orphan.keep(TcpEndpoint())
    at = orphan.serve(pod.address)
    client, server = await orphan.pair(at, pod)
    previous_workers, _ = await adopt(orphan)
    (sock,) = map(orphan.keep, previous_workers.take(TCP, at))
    orphan.sock.close()
    assert previous_workers.ports == {at.port}
    previous_workers.drain(60.0)
    assert not previous_workers.ports
    waiting = orphan.keep(await dial(at))
    # The worker's listener is closed, but all copies of the socket share the queue.
    await until(lambda: not orphan.main._worker._listeners, "a drain")
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


async def test_an_orphan_exits_after_a_timeout_unless_a_successor_is_connected(orphan, monkeypatch):
    monkeypatch.setattr(worker_main, "ORPHAN_S", 0.05)
    previous_workers, _ = await adopt(orphan)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 0.1
    await until(lambda: loop.time() > until_s, "twice the timeout")
    assert not orphan.main.ended.done()
    previous_workers.close()
    assert await orphan.main.ended == 1


async def test_udp_replies_still_arrive_while_an_orphan_drains(orphan):
    server = orphan.keep(UdpPeer())
    at = orphan.serve(server.address, protocol=UDP)
    client = orphan.keep(UdpPeer())
    client.sock.sendto(b"before", at)
    _, flow = await server.receive_from()
    previous_workers, count = await adopt(orphan)
    assert count == 1
    previous_workers.drain(60.0)
    await until(lambda: orphan.main._is_draining, "a drain")
    server.sock.sendto(b"after", flow)
    assert await client.receive_from() == (b"after", at)


async def test_connections_last_for_the_rest_of_a_drain_after_udp_replies(orphan, monkeypatch):
    monkeypatch.setattr(worker_module, "_REPLIES_S", 0.01)
    server = orphan.keep(UdpPeer())
    pod = orphan.keep(TcpEndpoint(*server.address))
    at = orphan.serve(server.address, protocol=UDP)
    listening = orphan.keep(open_listening(TCP, SocketAddress("127.0.0.1", 0), freebind=False))
    also = SocketAddress(*listening.getsockname())
    orphan.send(OpenListener(LISTENER + 1, GROUP, TCP, also), listening)
    both = await orphan.pair(also, pod)
    orphan.keep(UdpPeer(to=at)).sock.send(b"question")
    await server.receive()
    previous_workers, _ = await adopt(orphan)
    previous_workers.drain(60.0)
    await until(lambda: not orphan.main._worker._listeners, "the end of replies")
    await turns(3)
    assert not orphan.main.ended.done()
    for peer in both:
        peer.close()
    assert await orphan.main.ended == 0


async def test_an_orphan_survives_its_successors_death(orphan):
    pod = orphan.keep(TcpEndpoint())
    orphan.serve(pod.address)
    await orphan.report()
    first, _ = await adopt(orphan)
    first.close()
    second, count = await adopt(orphan)
    assert count == 1
    second.end()
    assert await orphan.main.ended == 0


class Renamed(msgspec.Struct, tag=True, array_like=True):
    """A message that is unknown to this version of the proxy."""

    text: str


@pytest.fixture
def elsewhere():
    net = Net("elsewhere")
    yield net
    net.close()


async def test_only_serving_sockets_of_this_namespace_are_adopted(idle, elsewhere, caplog, worker):
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
        assert await worker.previous_workers.adopt() == 1
        assert [address_of(idle.keep(s)) for s in worker.previous_workers.take(TCP, at)] == [at]
    (line,) = (one for one in caplog.records if "ignored invalid sockets" in one.message)
    assert line.sockets == 5


async def test_only_nftables_netlink_sockets_of_this_namespace_are_kept(elsewhere, worker):
    with contextlib.ExitStack() as stack:
        fake, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with elsewhere:
            far = netlink_socket()
        socks = [fake, netlink_socket(NETLINK_ROUTE), far, netlink_socket()]
        for sock in (*socks, other):
            stack.enter_context(sock)
        worker.hand_over(*socks, kept=["fake", "route", "far", "good"], is_last=True)
        await worker.previous_workers.adopt()
        assert list(worker.previous_workers.kept) == ["good"]


async def test_a_drain_closes_the_sockets_that_were_not_taken(worker):
    with socket.create_server(("127.0.0.1", 0)) as theirs, netlink_socket() as kept:
        at = SocketAddress(*theirs.getsockname())
        worker.hand_over(theirs, kept, kept=["a table"], is_last=True)
        assert await worker.previous_workers.adopt() == 1
    with worker.previous_workers.kept.pop("a table") as taken:
        worker.previous_workers.drain(0.0)
        assert worker.previous_workers.take(TCP, at) == []
        assert taken.fileno() >= 0


async def test_messages_unknown_to_this_version_are_skipped_and_logged_once(caplog, worker):
    with socket.create_server(("127.0.0.1", 0)) as good:
        for _ in range(2):
            worker.channel.send(Renamed(""), good)
        worker.hand_over(good, is_last=True)
        assert await worker.previous_workers.adopt() == 1
    (line,) = (one for one in caplog.records if "unknown to this version" in one.message)
    assert line.cause == "Invalid value 'Renamed' - at `$[0]`"


async def test_a_worker_sending_a_second_challenge_is_dropped(idle, caplog):
    with open_worker_socket(LABEL) as worker_socket, net_admin_proof.open_challenge() as challenge:
        (sock,) = connect_to_workers(LABEL)
        got = []
        worker = idle.keep(
            Channel(
                asyncio.get_running_loop(),
                worker_socket.accept()[0],
                reads=ToWorker,
                receive=lambda message, _: got.append(type(message)),
                lost=lambda _malformed: None,
            )
        )
        previous_workers = idle.keep(PreviousWorkers(asyncio.get_running_loop(), [sock]))
        for _ in range(3):
            worker.send(Prove(), challenge)
        assert await previous_workers.adopt(60.0) == 0
    assert [record.cause for record in caplog.records] == ["it sends a second challenge"]
    idle.channel.close()


@pytest.mark.parametrize("command", ["drain", "end"])
async def test_a_worker_that_answers_after_adoption_still_obeys_commands(orphan, command):
    """A worker obeys only a proven process; without one it would serve alone for minutes."""
    orphan.channel.close()
    previous_workers = orphan.keep(
        PreviousWorkers(asyncio.get_running_loop(), connect_to_workers(LABEL))
    )
    assert await previous_workers.adopt(0.0) == 0
    previous_workers.drain(0.0) if command == "drain" else previous_workers.end()
    assert await asyncio.wait_for(orphan.main.ended, 60.0) == 0
    assert await previous_workers.answered(60.0) == 0


async def test_a_worker_that_answers_after_orders_to_drain_and_to_exit_drains(worker):
    await worker.previous_workers.adopt(0.0)
    worker.previous_workers.drain(5.0)
    worker.previous_workers.end()
    assert await worker.previous_workers.answered(0.0) == 1
    worker.hand_over(is_last=True)
    assert await worker.previous_workers.answered(60.0) == 0
    await until(lambda: worker.got == [HandOver(), Drain(5.0)], "a drain")


@pytest.mark.parametrize("change", ["answers", "ends"])
async def test_a_worker_ordered_to_drain_is_counted_until_it_answers_or_exits(change, worker):
    previous_workers = worker.previous_workers
    await previous_workers.adopt(0.0)
    previous_workers.drain(5.0)
    assert len(previous_workers) == 1
    if change == "ends":
        worker.channel.close()
    else:
        worker.hand_over(is_last=True)
        await until(lambda: worker.got == [HandOver(), Drain(5.0)], "a drain")
    await until(lambda: not previous_workers, "the end of the last previous worker")


async def test_sockets_handed_over_after_the_adoption_are_closed(worker):
    """If the sockets stayed open, this process couldn't bind its own listener to the port."""
    await worker.previous_workers.adopt(0.0)
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        at = theirs.getsockname()
        worker.hand_over(theirs, is_last=True)
        await until(worker.previous_workers._workers[0].handed_over.done)
    socket.create_server(at).close()


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_worker_sending_too_many_sockets_is_dropped_and_others_are_adopted(idle, caplog):
    idle.channel.close()
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(2)]
        previous_workers = idle.keep(PreviousWorkers(loop, [ours for ours, _ in pairs]))
        previous_workers._max_sockets = 20
        bad, good = (Compromised(idle.keep, previous_workers, theirs) for _, theirs in pairs)
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        good.hand_over(listening, is_last=True)
        before = open_descriptors()
        for _ in range(100):
            bad.hand_over(*[listening] * 4, kept=["a", "b"])
        assert await previous_workers.adopt(60.0) == 1
        # The additional descriptor is the other worker's socket.
        assert open_descriptors() <= before + 1
    (line,) = (one for one in caplog.records if "not adopting a previous" in one.message)
    assert line.cause == "22 sockets"


async def test_affinity_entries_from_one_worker_are_limited(monkeypatch, worker):
    monkeypatch.setattr(adoption, "MAX_ENTRIES", 3)
    for message in (
        AffinityEntries("none", []),
        AffinityEntries("shop/a", PINS.entries * 3),
        AffinityEntries("shop/b", PINS.entries),
    ):
        worker.channel.send(message)
    worker.hand_over(is_last=True)
    worker.channel.send(AffinityEntries("shop/c", PINS.entries))
    await worker.previous_workers.adopt(60.0)
    await worker.previous_workers.all_entries(60.0)
    taken = {label: worker.previous_workers.take_entries(f"shop/{label}") for label in "abc"}
    assert taken == {"a": [AffinityEntries("shop/a", PINS.entries * 2)], "b": [], "c": []}


@pytest.mark.parametrize("message", [Logged("a", 0, 0.0, "x" * MIB, {}, ""), Renamed("x" * MIB)])
async def test_the_bytes_read_from_one_worker_are_limited(caplog, message, worker):
    for _ in range(2 * 32 - 1):
        worker.channel.send(message)
    assert await worker.previous_workers.adopt(60.0) == 0
    (line,) = (one for one in caplog.records if "not adopting a previous" in one.message)
    assert line.cause == "more than 33554432 bytes"


async def test_a_report_for_a_previous_control_process_is_discarded(orphan, monkeypatch):
    """The next process would reject a large report as malformed, and couldn't drain the worker."""
    monkeypatch.setattr(adoption, "_MAX_FRAME_BYTES", 60)
    monkeypatch.setattr(worker_main, "_MAX_ENTRIES_WAITING_BYTES", 0)
    main, channel = orphan.main, orphan.main._channel

    def settle():
        while main._channel is channel:
            yield

    monkeypatch.setattr(main._worker._dataplane, "settle", settle)
    orphan.serve()
    orphan.send(Report(1))
    await until(lambda: main._worker._slices, "a report that takes a long time")
    previous_workers, count = await adopt(orphan)
    await until(lambda: not main._worker._slices, "the end of the report")
    await turns(10)
    previous_workers.drain(0.0)
    assert (count, await asyncio.wait_for(main.ended, 60.0)) == (1, 0)


@pytest.fixture
async def listening(idle):
    """A worker socket, and a previous worker that listens on it."""
    idle.channel.close()
    with open_worker_socket(LABEL) as worker_socket:
        loop = asyncio.get_running_loop()
        yield worker_socket, idle.keep(PreviousWorkers(loop, connect_to_workers(LABEL)))


async def test_a_successor_reconnects_even_if_no_descriptor_was_left(idle, listening, monkeypatch):
    worker_socket, previous_workers = listening
    (previous,) = previous_workers._workers
    adopting = asyncio.create_task(previous_workers.adopt(60.0))
    monkeypatch.setattr(adoption, "_AGAIN_S", 3600.0)
    worker_socket.accept()[0].close()
    await until(lambda: previous._timer)
    monkeypatch.undo()
    with descriptors_left(0):
        previous._connect_again()
    assert not previous.handed_over.done()
    worker = Compromised(idle.keep, previous_workers, await next_at(worker_socket))
    with socket.create_server(("127.0.0.1", 0)) as good:
        worker.hand_over(good, is_last=True)
        assert await adopting == 1
    await until(lambda: worker.got == [HandOver()])


async def test_a_successor_does_not_reconnect_to_an_exited_worker(listening):
    worker_socket, previous_workers = listening
    worker_socket.close()
    assert await previous_workers.adopt(60.0) == 0


async def test_a_worker_that_hangs_up_after_adoption_is_drained(idle, listening, monkeypatch):
    """Issue 33: a stopped worker missed its deadline for the proof."""
    monkeypatch.setattr(adoption, "_LATE_AGAIN_S", 0.01)
    worker_socket, previous_workers = listening
    stopped = worker_socket.accept()[0]
    assert await previous_workers.adopt(0.0) == 0
    previous_workers.drain(7.0)
    stopped.close()
    worker = Compromised(idle.keep, previous_workers, await next_at(worker_socket))
    worker.hand_over(is_last=True)
    await until(lambda: worker.got == [HandOver(), Drain(7.0)])
    assert len(previous_workers) == 0
