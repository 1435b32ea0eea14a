import contextlib
import os
import select
import socket

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.errors import ListenError
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.plane import PortPool
from userspace_proxy.plane.listener import ListeningSockets

from ..dataplane.peers import UdpPeer, address_of, dial
from ..dataplane.rig import open_sockets

ANY = SocketAddress("127.0.0.1", 0)
TCP, UDP = Protocol.TCP, Protocol.UDP
BOTH = pytest.mark.parametrize("protocol", list(Protocol))
CLIENTS = [f"127.0.0.{number}" for number in range(2, 20)]


@pytest.fixture
def share():
    before = open_sockets()
    with contextlib.ExitStack() as stack:

        def share(protocol=TCP, at=ANY, workers=(0, 1), admits=None, inherited=()):
            sockets = ListeningSockets(
                protocol, at, freebind=False, workers=workers, admits=admits, inherited=inherited
            )
            stack.callback(sockets.close)
            return sockets

        yield share
    assert open_sockets() <= before, "a socket was left open"


async def who_is_reached(sockets, client):
    """Return the worker whose socket a TCP client connects to; None if there is none."""
    peer = await dial(sockets.at, source=client)
    with contextlib.closing(peer):
        for worker, sock in sockets.by_worker.items():
            with contextlib.suppress(BlockingIOError):
                sock.accept()[0].close()
                return worker
    return None


@BOTH
def test_pythons_default_socket_timeout_has_no_effect(share, protocol):
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(5)
    try:
        sockets = share(protocol)
        assert not any(sock.getblocking() for sock in sockets.by_worker.values())
    finally:
        socket.setdefaulttimeout(before)


def accept_all(sock):
    """Return how many clients wait in a socket's queue; close their connections."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.accept()[0].close()
            count += 1
    return count


def copies_of(sockets):
    """Return the copies of sockets that the next control process receives."""
    return [socket.socket(fileno=os.dup(sock.fileno())) for sock in sockets.by_worker.values()]


@pytest.mark.parametrize("count", [1, 2])
async def test_clients_queued_on_sockets_of_the_previous_process_can_be_accepted(share, count):
    before = share(workers=range(count))
    waiting = [await dial(before.at, source=client) for client in CLIENTS]
    with contextlib.ExitStack() as stack:
        for peer in waiting:
            stack.callback(peer.close)
        after = share(at=before.at, workers=range(count), inherited=copies_of(before))
        # The previous process's sockets are closed when it exits, but not shut down.
        for sock in before.by_worker.values():
            sock.close()
        before.socks = ()
        queued = {worker: accept_all(sock) for worker, sock in after.by_worker.items()}
    assert all(queued.values())
    assert sum(queued.values()) == len(CLIENTS)


@BOTH
def test_new_sockets_are_opened_for_additional_workers(share, protocol):
    before = share(protocol, workers=(0,))
    after = share(protocol, at=before.at, workers=(0, 1), inherited=copies_of(before))
    assert {address_of(sock) for sock in after.by_worker.values()} == {before.at}
    assert len(after.by_worker) == 2


def by_address(count):
    """Return the worker that the kernel chooses for each client by its address."""
    return {client: int.from_bytes(socket.inet_aton(client), "big") % count for client in CLIENTS}


async def whom_clients_reach(sockets, protocol):
    """Return the worker that each client reaches."""
    if protocol is TCP:
        return {client: await who_is_reached(sockets, client) for client in CLIENTS}
    for client in CLIENTS:
        with contextlib.closing(UdpPeer(client, to=sockets.at)) as peer:
            peer.send(client.encode())
    return {
        client.decode(): worker
        for worker, sock in sockets.by_worker.items()
        for client in received(sock)
    }


@BOTH
def test_sockets_without_a_worker_are_closed(share, protocol):
    before = share(protocol, workers=(0, 1))
    after = share(protocol, at=before.at, workers=(0,), inherited=copies_of(before))
    assert list(after.by_worker) == [0]


@pytest.mark.parametrize(
    ("had", "late", "count"),
    [(3, 0, 3), (3, 0, 4), (4, 0, 2), (4, 0, 3), (4, 1, 3), (4, 2, 3), (4, 3, 5), (4, 3, 6)],
)
@BOTH
async def test_clients_reach_workers_in_order_after_a_previous_worker_exits_without_a_hand_over(
    share, protocol, had, late, count
):
    before = share(protocol, workers=range(had))
    copies = copies_of(before)
    of_late_worker, inherited = copies[late], [*copies]
    inherited[late] = None
    after = share(protocol, at=before.at, workers=range(count), inherited=inherited)
    for sock in before.socks:
        sock.close()
    before.socks = ()
    after.choose(by_client=True)
    of_late_worker.close()
    assert await whom_clients_reach(after, protocol) == by_address(count)


@BOTH
def test_with_fewer_workers_an_inherited_socket_takes_a_missing_sockets_index(share, protocol):
    before = share(protocol, workers=(0, 1))
    copies = copies_of(before)
    after = share(protocol, at=before.at, workers=(0,), inherited=[None, copies[1]])
    assert after.socks == (copies[1],)
    copies[0].close()


@pytest.mark.parametrize("drains_first", [0, 1])
async def test_udp_sockets_reopened_beside_open_copies_serve_in_worker_order(share, drains_first):
    sockets = share(UDP)
    sockets.choose(by_client=True)
    copies = copies_of(sockets)
    sockets.refuse()
    sockets.leave()
    assert is_refused(sockets.at)
    sockets.serve()
    assert await whom_clients_reach(sockets, UDP) == by_address(2)
    for copy in (copies.pop(drains_first), *copies):
        copy.close()
    assert await whom_clients_reach(sockets, UDP) == by_address(2)


def test_an_inherited_udp_socket_whose_port_was_about_to_refuse_is_taken_over(share):
    """The previous process exited before its worker closed its copy of the socket."""
    before = share(UDP, workers=(0,))
    copies = copies_of(before)
    before.refuse()
    before.close()
    after = share(UDP, at=before.at, workers=(0,), inherited=copies)
    (sock,) = after.socks
    assert not sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    after.refuse()
    after.leave()
    after.serve()
    assert who_gets_in(after, *CLIENTS) == set(CLIENTS)


def test_an_inherited_listener_uses_the_source_ranges_of_this_process(share):
    before = share(workers=(0,), admits=["192.0.2.0/24"])
    after = share(at=before.at, workers=(0,), inherited=copies_of(before))
    with socket.create_connection(after.at, 1.0):
        assert accept_all(after.by_worker[0]) == 1


@pytest.mark.parametrize("workers", [(0,), (0, 1)], ids=["one-worker", "two-workers"])
@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "reuseport"])
@BOTH
def test_a_port_used_by_another_program_is_rejected(share, protocol, is_shared, workers):
    kind = socket.SOCK_STREAM if protocol is TCP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        if is_shared:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        if protocol is TCP:
            other.listen()
        with pytest.raises(ListenError, match="another program holds port"):
            share(protocol, address_of(other), workers)


@pytest.mark.parametrize("workers", [(0,), (0, 1)], ids=["one-worker", "two-workers"])
async def test_while_a_tcp_listener_refuses_no_other_program_can_bind_its_port(share, workers):
    sockets = share(workers=workers)
    peer = await dial(sockets.at)
    with contextlib.closing(peer), sockets.by_worker[0].dup() as copy:
        copy.setblocking(False)
        sockets.refuse()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError, match="Address already in use"):
                other.bind(sockets.at)
        with pytest.raises(ListenError):
            share(at=sockets.at)
        sockets.serve()
        assert await who_is_reached(sockets, "127.0.0.1") is not None
        sockets.refuse()
        sockets.close()
        share(at=sockets.at)
        assert copy.fileno() >= 0


async def test_a_listener_that_starts_to_refuse_resets_queued_clients(share):
    sockets = share()
    waiting = [await dial(sockets.at) for _ in range(4)]
    sockets.refuse()
    for peer in waiting:
        with contextlib.closing(peer):
            assert await peer.was_reset()


async def test_clients_reach_the_same_workers_after_a_listener_refused_in_between(share):
    sockets = share(workers=(0, 1, 2))
    sockets.choose(by_client=True)
    before = {client: await who_is_reached(sockets, client) for client in CLIENTS}
    assert set(before.values()) == {0, 1, 2}
    sockets.refuse()
    sockets.serve()
    assert {client: await who_is_reached(sockets, client) for client in CLIENTS} == before


async def test_the_choice_of_sockets_can_change_while_a_listener_refuses(share):
    sockets = share()
    sockets.refuse()
    sockets.choose(by_client=True)
    sockets.serve()
    assert len({await who_is_reached(sockets, "127.0.0.3") for _ in range(30)}) == 1
    sockets.choose(by_client=False)
    assert {await who_is_reached(sockets, "127.0.0.3") for _ in range(100)} == {0, 1}


def test_a_closed_udp_listener_serves_again_on_the_same_port(share):
    sockets = share(UDP)
    at = sockets.at
    sockets.choose(by_client=True)
    sockets.close()
    assert sockets.by_worker == {}
    sockets.serve()
    assert {address_of(sock) for sock in sockets.by_worker.values()} == {at}
    with contextlib.closing(UdpPeer("127.0.0.3", to=at)) as client:
        for _ in range(20):
            client.send(b"hello")
    # The worker is chosen by address: 127.0.0.3 is odd.
    assert len(received(sockets.by_worker[1])) == 20


@pytest.mark.parametrize("workers", [(0,), (0, 1)], ids=["one-worker", "two-workers"])
def test_a_refusing_udp_listener_keeps_its_port_and_serves_again(share, workers):
    sockets = share(UDP, workers=workers)
    for _ in range(2):
        sockets.refuse()
        sockets.leave()
        with pytest.raises(OSError, match="in use"):
            UdpPeer(port=sockets.at.port)
        assert is_refused(sockets.at)
        sockets.serve()
        assert who_gets_in(sockets, *CLIENTS) == set(CLIENTS)
        assert all(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
            for sock in sockets.by_worker.values()
        ) == (len(workers) > 1)


def test_a_udp_listener_that_fails_to_reopen_keeps_its_port(share):
    sockets = share(UDP, workers=(0, 1))
    sockets.refuse()
    sockets.leave()
    with descriptors_left(1), pytest.raises(ListenError):
        sockets.serve()
    with pytest.raises(OSError, match="in use"):
        UdpPeer(port=sockets.at.port)
    sockets.serve()
    assert list(sockets.by_worker) == [0, 1]
    assert who_gets_in(sockets, *CLIENTS) == set(CLIENTS)


@pytest.mark.parametrize("workers", [(0,), (0, 1)], ids=["one-worker", "two-workers"])
def test_a_udp_listener_keeps_its_port_if_no_reserving_socket_can_be_opened(share, workers):
    sockets = share(UDP, workers=workers)
    with descriptors_left(0):
        sockets.refuse()
        sockets.leave()
    assert sockets.by_worker == {}
    with pytest.raises(OSError, match="in use"):
        UdpPeer(port=sockets.at.port)
    assert is_refused(sockets.at)
    sockets.serve()
    assert who_gets_in(sockets, *CLIENTS) == set(CLIENTS)


def is_refused(at):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.connect(at)
        client.send(b"hello")
        try:
            client.recv(100)
        except ConnectionRefusedError:
            return True
    return False


def received(sock):
    got = []
    with contextlib.suppress(BlockingIOError):
        while True:
            got.append(sock.recv(100))
    return got


def test_a_udp_listener_that_refuses_only_briefly_keeps_its_sockets(share):
    sockets = share(UDP)
    inodes = [os.fstat(sock.fileno()).st_ino for sock in sockets.by_worker.values()]
    sockets.refuse()
    sockets.serve()
    assert [os.fstat(sock.fileno()).st_ino for sock in sockets.by_worker.values()] == inodes
    # If the sockets were shut down, they would always be readable.
    assert select.select(sockets.by_worker.values(), [], [], 0) == ([], [], [])


def who_gets_in(sockets, *clients):
    """Return the clients whose datagrams reach a worker."""
    for client in clients:
        with contextlib.closing(UdpPeer(client, to=sockets.at)) as peer:
            peer.send(client.encode())
    return {payload.decode() for s in sockets.by_worker.values() for payload in received(s)}


def test_a_change_of_admitted_clients_applies_to_every_socket(share):
    sockets = share(UDP, workers=(0, 1, 2), admits=["127.0.0.2/32"])
    assert who_gets_in(sockets, *CLIENTS) == {"127.0.0.2"}
    sockets.admit(["127.0.0.3/32", "127.0.0.4/32"])
    assert who_gets_in(sockets, *CLIENTS) == {"127.0.0.3", "127.0.0.4"}
    sockets.admit([])
    assert who_gets_in(sockets, *CLIENTS) == set()
    sockets.admit(None)
    assert who_gets_in(sockets, *CLIENTS) == set(CLIENTS)


async def test_if_one_socket_fails_to_listen_all_sockets_continue_to_refuse(share):
    sockets = share()
    sockets.refuse()
    # A socket that doesn't share the port can't listen beside the first one.
    sockets.by_worker[1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    with pytest.raises(ListenError):
        sockets.serve()
    with pytest.raises(ConnectionRefusedError):
        await dial(sockets.at)


def take_next(pool):
    port = next(pool.candidates())
    pool.take(port)
    return port


def test_every_port_of_the_range_is_a_candidate_once():
    assert list(PortPool(5, 8).candidates()) == [5, 6, 7, 8]


def test_the_preferred_port_is_the_first_candidate():
    assert list(PortPool(5, 8).candidates(preferred=7)) == [7, 5, 6, 8]


def test_a_preferred_port_outside_the_range_or_in_use_is_not_a_candidate():
    pool = PortPool(5, 6)
    pool.take(6)
    assert list(pool.candidates(preferred=80)) == [5]
    assert list(pool.candidates(preferred=6)) == [5]


def test_a_released_port_is_reused_after_all_other_ports():
    pool = PortPool(5, 7)
    assert [take_next(pool), take_next(pool)] == [5, 6]
    pool.give(5)
    pool.give(5)
    assert [take_next(pool), take_next(pool)] == [7, 5]


def test_a_full_pool_has_no_candidates():
    pool = PortPool(5, 5)
    pool.take(5)
    assert list(pool.candidates()) == []
    assert not pool.free


def test_spared_ports_are_candidates_only_if_preferred():
    pool = PortPool(5, 7)
    pool.spare([5, 6])
    assert list(pool.candidates()) == [7]
    assert list(pool.candidates(preferred=6)) == [6, 7]
    pool.spare(())
    assert list(pool.candidates()) == [5, 6, 7]


def test_a_port_pool_contains_only_integer_ports_of_its_range():
    pool = PortPool(5, 6)
    assert [port in pool for port in (4, 5, 6, 7, "5")] == [False, True, True, False, False]
