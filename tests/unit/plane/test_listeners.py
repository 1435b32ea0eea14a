"""The workers of a listener, and the listener's lifetime; test_link.py has the clients' view."""

import contextlib
import errno
import os
import resource
import select
import socket
from types import SimpleNamespace

import pytest

from tests.port_keys import port_key
from userspace_proxy.errors import BoundError, ListenError, ShortageError
from userspace_proxy.kernel import classic_bpf
from userspace_proxy.model import Handling, Hold, Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import Wanted, reuseport
from userspace_proxy.plane.group import Group
from userspace_proxy.plane.listener import RESERVE, ListeningSockets
from userspace_proxy.plane.listeners import Listeners
from userspace_proxy.plane.messages import ChangeGroup, CloseListener, MoveListener, OpenListener

from ..dataplane.peers import UdpPeer, dial
from ..dataplane.rig import open_sockets
from ..dataplane.waiting import until
from ..port_numbers import free_port

TCP, UDP = Protocol.TCP, Protocol.UDP
BOTH = pytest.mark.parametrize("protocol", list(Protocol))
ANY = SocketAddress("127.0.0.1", 0)
POD_A = SocketAddress("10.0.0.1", 80)
RANGES, HOLD = ("127.0.0.3/32",), Handling(hold=Hold(9.0))


class Workers:
    """Two workers that record their messages, except while they are dead."""

    def __init__(self):
        self.heard = []
        self.dead = set()
        self.numbers = 0
        self.listeners = Listeners(2, 10_000, self.send)

    def send(self, worker, message, *_socks):
        if worker in self.dead:
            return False
        self.heard.append((worker, type(message)))
        return True

    def hear(self):
        heard, self.heard = self.heard, []
        return heard

    def group(self):
        self.numbers += 1
        return Group(self.numbers, port_key("shop/web:http"))

    def serve(self, group, wanted, *endpoints, **others):
        """Serve a group as a plane does, without messages about the group."""
        serving = Serving(endpoints, **others)
        self.listeners.prepare(group, serving, wanted)
        group.change(serving)
        return self.listeners.follow(group, wanted)

    def open(self, protocol, *endpoints, **others):
        """Return a group, its wanted listeners, and its only listener."""
        group, wanted = self.group(), {object(): Wanted(protocol, (ANY,))}
        (listener,) = self.serve(group, wanted, *endpoints, **others).listeners.values()
        self.hear()
        return group, wanted, listener


@pytest.fixture
def workers():
    before = open_sockets()
    workers = Workers()
    yield workers
    workers.listeners.close_all()
    assert open_sockets() <= before, "a socket was left open"


def both(kind):
    return [(0, kind), (1, kind)]


@BOTH
def test_opening_and_closing_a_listener_is_sent_to_every_worker(workers, protocol):
    group = workers.group()
    workers.serve(group, {"web": Wanted(protocol, (ANY,))}, POD_A)
    assert workers.hear() == both(OpenListener)
    for closed in (1, 0):
        assert len(workers.listeners.close_group(group)) == closed
    assert workers.hear() == both(CloseListener)


@BOTH
def test_workers_close_a_listener_that_refuses_and_reopen_it_once_it_serves(workers, protocol):
    group, wanted, listener = workers.open(protocol, POD_A)
    for _ in range(2):
        workers.serve(group, wanted)
    assert (workers.hear(), listener.is_serving) == (both(CloseListener), False)
    for _ in range(2):
        assert workers.serve(group, wanted, POD_A).errors == {}
    assert (workers.hear(), listener.is_serving) == (both(OpenListener), True)


@BOTH
def test_a_new_worker_receives_all_serving_listeners(workers, protocol):
    for endpoints in ((POD_A,), ()):
        workers.open(protocol, *endpoints)
    workers.listeners.send_all(1)
    assert workers.hear() == [(1, OpenListener)]


@BOTH
def test_workers_close_a_listener_before_it_moves_to_a_refusing_group(workers, protocol):
    before, wanted, listener = workers.open(protocol, POD_A)
    for endpoints, expected in [
        ((POD_A,), both(MoveListener)),
        ((), [*both(CloseListener), *both(MoveListener)]),
        ((POD_A,), [*both(MoveListener), *both(OpenListener)]),
    ]:
        group = workers.group()
        answer = workers.serve(group, wanted, *endpoints)
        assert (workers.hear(), listener.group) == (expected, group)
        assert list(answer.listeners.values()) == [listener]
        assert listener.is_serving == bool(endpoints)
        assert workers.listeners.close_group(before) == []
        before = group


def test_an_unwanted_listener_stops_serving_and_is_closed_later(workers):
    group, _, listener = workers.open(TCP, POD_A)
    assert workers.serve(group, {}).listeners == {}
    assert (listener.is_serving, listener.is_closed) == (False, False)
    assert workers.listeners.close_unwanted() == [listener]
    assert workers.listeners.close_unwanted() == []
    assert listener.is_closed


def test_an_unwanted_listener_may_be_closed_with_its_group(workers):
    group, _, listener = workers.open(TCP, POD_A)
    workers.serve(group, {})
    assert workers.listeners.close_group(group) == [listener]
    assert workers.listeners.close_unwanted() == []


@pytest.mark.parametrize("is_own", [True, False], ids=["the-same-group", "another-group"])
def test_a_listener_wanted_again_is_not_closed(workers, is_own):
    group, wanted, listener = workers.open(TCP, POD_A)
    workers.serve(group, {}, POD_A)
    workers.serve(group if is_own else workers.group(), wanted, POD_A)
    assert workers.listeners.close_unwanted() == []
    assert not listener.is_closed


@pytest.mark.parametrize("at_first", [None, 60], ids=["without-affinity", "with-affinity"])
def test_a_listener_applies_its_services_affinity_and_a_change_of_it(workers, at_first):
    group, wanted, listener = workers.open(UDP, POD_A, affinity_timeout_s=at_first)
    socks = listener.sockets.socks
    # The worker is chosen by the client's address: 127.0.0.1 is odd.
    for affinity_timeout_s, reached in [(60, socks[1:]), (None, socks)]:
        if group.serving.affinity_timeout_s != affinity_timeout_s:
            workers.serve(group, wanted, POD_A, affinity_timeout_s=affinity_timeout_s)
        for _ in range(30):
            with contextlib.closing(UdpPeer(to=listener.address)) as client:
                client.send(b"hello")
        assert select.select(socks, [], [], 0)[0] == list(reached)


def test_the_first_available_of_several_addresses_is_used(workers):
    with contextlib.closing(UdpPeer()) as thief:
        group = workers.group()
        wanted = {"dns": Wanted(UDP, iter((thief.address, ANY)))}
        (listener,) = workers.serve(group, wanted, POD_A).listeners.values()
        assert listener.address.port not in (0, thief.address.port)
        answer = workers.serve(group, {"ntp": Wanted(UDP, (thief.address,))}, POD_A)
        assert (answer.listeners, list(answer.errors)) == ({}, ["ntp"])
        assert isinstance(answer.errors["ntp"], ListenError)


def test_an_address_missing_from_the_machine_stops_the_search_for_a_port(workers):
    tried = []

    def addresses():
        for port in (27000, 27001):
            tried.append(port)
            yield SocketAddress("192.0.2.77", port)

    answer = workers.serve(workers.group(), {"ntp": Wanted(UDP, addresses())}, POD_A)
    assert isinstance(answer.errors["ntp"], ListenError)
    assert tried == [27000]


def test_a_wanted_listener_without_addresses_is_neither_opened_nor_an_error(workers):
    answer = workers.serve(workers.group(), {"web": Wanted(TCP, ())}, POD_A)
    assert answer == ({}, {"web": None})


async def test_a_client_queued_on_a_recovered_port_is_accepted_by_the_first_worker(workers):
    at = SocketAddress("127.0.0.1", free_port())
    workers.listeners.recover([(TCP, at)], transparent=False)
    with contextlib.closing(await dial(at)) as client:
        wanted = {"web": Wanted(TCP, (at,))}
        (listener,) = workers.serve(workers.group(), wanted, POD_A).listeners.values()
        assert list(listener.sockets.by_worker) == [0, 1]
        accepted, address = listener.sockets.by_worker[0].accept()
        with accepted:
            assert address == client.address


async def test_a_recovered_port_is_closed_with_all_listeners(workers):
    at = SocketAddress("127.0.0.1", free_port())
    workers.listeners.recover([(TCP, at)], transparent=False)
    workers.listeners.close_all()
    with pytest.raises(ConnectionRefusedError):
        await dial(at)


def test_recovered_ports_use_at_most_half_of_the_descriptors():
    listeners = Listeners(1, 4, lambda *_: True)
    ports = [(UDP, SocketAddress("127.0.0.1", free_port(UDP))) for _ in range(3)]
    listeners.recover(ports, transparent=False)
    assert len(listeners.recovered) == 2
    listeners.close_all()


def is_ours(listener):
    return bool(listener.sockets.by_worker)


def test_a_udp_port_is_kept_until_previous_workers_have_drained(workers):
    previous_workers = SimpleNamespace(take=lambda *_: [], ports=frozenset())
    workers.listeners = Listeners(2, 10_000, workers.send, previous_workers)
    group, wanted, listener = workers.open(UDP, POD_A)
    previous_workers.ports = frozenset({listener.address.port})
    for endpoints in ((), (POD_A,), ()):
        workers.serve(group, wanted, *endpoints)
        workers.listeners.worker_ended(0)
        workers.listeners.worker_ended(1)
        assert is_ours(listener)
    workers.listeners.previous_workers_drain()
    assert is_ours(listener)
    previous_workers.ports = frozenset()
    workers.listeners.previous_workers_drain()
    assert not is_ours(listener)


def test_a_udp_port_refusing_twice_is_kept_until_every_copy_is_closed(workers):
    """Otherwise, if the port serves again in the meantime, the worker's copy would keep it busy."""
    group, wanted, listener = workers.open(UDP, POD_A)
    for endpoints in ((), (POD_A,), ()):
        workers.serve(group, wanted, *endpoints)
    for is_kept in (True, False):
        for worker in (0, 1):
            workers.listeners.closed_by(worker, listener.number)
        assert is_ours(listener) is is_kept


def test_a_refusing_udp_port_is_reserved_until_closed(workers):
    assert not is_ours(workers.open(UDP)[2])
    group, wanted, listener = workers.open(UDP, POD_A)
    workers.serve(group, wanted)
    for worker in (0, 1):
        workers.listeners.closed_by(worker, listener.number)
    with pytest.raises(OSError, match="in use"):
        UdpPeer(port=listener.address.port)
    workers.listeners.close_group(group)
    for worker in (0, 1):
        workers.listeners.closed_by(worker, listener.number)
    UdpPeer(port=listener.address.port).close()


@pytest.mark.parametrize("is_at_once", [True, False])
def test_a_udp_port_closed_while_refusing_serves_after_reopening(workers, is_at_once):
    """This holds even if workers haven't confirmed that they closed it."""
    group, wanted, listener = workers.open(UDP, POD_A)
    workers.serve(group, wanted)
    for worker in (0, 1):
        workers.listeners.closed_by(worker, listener.number)
    workers.listeners.close_group(group)
    workers.hear()
    group, again = workers.group(), {"again": Wanted(UDP, (listener.address,))}
    if not is_at_once:
        workers.serve(group, again)
    answer = workers.serve(group, again, POD_A, admits=("127.0.0.2/32",))
    assert answer.errors == {}
    assert workers.hear() == both(OpenListener)
    with pytest.raises(OSError, match="in use"):
        UdpPeer(port=listener.address.port)
    for ip in ("127.0.0.1", "127.0.0.2"):
        with contextlib.closing(UdpPeer(ip, to=listener.address)) as client:
            client.send(ip.encode())
    (reached,) = select.select(answer.listeners["again"].sockets.socks, [], [], 0)[0]
    assert reached.recv(99) == b"127.0.0.2"


def test_a_closed_udp_port_is_not_reused_while_descriptors_are_scarce(workers):
    workers.listeners = Listeners(2, 8, workers.send)
    group, _, listener = workers.open(UDP, POD_A)
    workers.listeners.close_group(group)
    for _ in range(2):
        workers.open(TCP, POD_A)
    group, again = workers.group(), {"again": Wanted(UDP, (listener.address,))}
    (error,) = workers.serve(group, again, POD_A).errors.values()
    assert isinstance(error, BoundError)
    assert sum(workers.listeners._counts) == 4


def test_a_closed_udp_port_is_released_when_its_last_worker_exits(workers):
    group, wanted, listener = workers.open(UDP, POD_A)
    for endpoints in ((), (POD_A,), ()):
        workers.serve(group, wanted, *endpoints)
    for _ in range(2):
        workers.listeners.closed_by(1, listener.number)
    assert is_ours(listener)
    workers.listeners.worker_ended(0)
    assert not is_ours(listener)
    group, _, listener = workers.open(UDP, POD_A)
    workers.listeners.close_group(group)
    for worker in (0, 1):
        workers.listeners.worker_ended(worker)
    UdpPeer(port=listener.address.port).close()


def test_tcp_does_not_take_over_the_sockets_of_a_closed_udp_port(workers):
    group, _, udp = workers.open(UDP, POD_A)
    workers.listeners.close_group(group)
    wanted = {"again": Wanted(TCP, (udp.address,))}
    (tcp,) = workers.serve(workers.group(), wanted, POD_A).listeners.values()
    assert {sock.type for sock in tcp.sockets.socks} == {socket.SOCK_STREAM}


@pytest.mark.parametrize(
    ("before", "after", "applied"),
    [
        pytest.param(None, Serving((POD_A,), admits=RANGES), [RANGES], id="first-ranges"),
        pytest.param(RANGES, Serving((POD_A,)), [], id="no-more-ranges"),
        pytest.param(RANGES, Serving(admits=(), handling=HOLD), [()], id="no-more-endpoints"),
    ],
)
def test_only_stricter_source_ranges_apply_before_workers_receive_a_change(
    workers, before, after, applied, monkeypatch
):
    group, wanted, _ = workers.open(TCP, POD_A, admits=before)
    admitted = []
    monkeypatch.setattr(ListeningSockets, "admit", lambda _socks, ranges: admitted.append(ranges))
    workers.listeners.prepare(group, after, wanted)
    assert admitted == applied


@BOTH
def test_without_the_kernels_choice_of_sockets_no_client_is_served_with_affinity(
    workers, protocol, monkeypatch
):
    group, wanted, listener = workers.open(protocol, POD_A)
    monkeypatch.setattr(classic_bpf, "SO_ATTACH_REUSEPORT_CBPF", 999)
    monkeypatch.setattr(reuseport, "SO_DETACH_REUSEPORT_BPF", 999)
    wanted["new"] = Wanted(protocol, (ANY,))
    for _ in range(2):
        answer = workers.serve(group, wanted, POD_A, affinity_timeout_s=60)
        assert {error.cause for error in answer.errors.values()} == {"Protocol not available"}
        assert (answer.errors.keys(), listener.is_serving) == (wanted.keys(), False)
    assert workers.serve(group, wanted, POD_A).errors == {}


def test_closing_a_listener_does_not_wait_for_a_dead_worker(workers):
    group, wanted, listener = workers.open(UDP, POD_A)
    workers.dead = {0, 1}
    workers.serve(group, wanted)
    assert not is_ours(listener)
    workers.listeners.close_group(group)
    UdpPeer(port=listener.address.port).close()


def test_a_worker_may_respond_while_a_message_is_being_sent(workers):
    """A worker in the caller's loop responds immediately."""
    group, wanted, listener = workers.open(UDP, POD_A)

    def send(worker, message, *_socks):
        if isinstance(message, CloseListener):
            workers.listeners.closed_by(worker, message.listener)
        return True

    workers.listeners._send = send
    workers.serve(group, wanted)
    assert not is_ours(listener)
    workers.serve(group, wanted, POD_A)
    workers.listeners.close_group(group)
    assert (is_ours(listener), workers.listeners._leaving) == (False, {})


def test_only_the_listener_whose_port_is_in_use_refuses(workers):
    group, wanted, taken = workers.open(UDP, POD_A)
    wanted["other"] = Wanted(UDP, (ANY,))
    other = workers.serve(group, wanted, POD_A).listeners["other"]
    workers.serve(group, wanted)
    for worker in (0, 1):
        workers.listeners.closed_by(worker, taken.number)
    # Some kernels can't hold a port.
    taken.sockets.close()
    with contextlib.closing(UdpPeer(port=taken.address.port)):
        answer = workers.serve(group, wanted, POD_A)
        assert [type(error) for error in answer.errors.values()] == [ListenError]
        assert (taken.is_serving, other.is_serving) == (False, True)
        assert answer.listeners.keys() == wanted.keys()
    assert workers.serve(group, wanted, POD_A).errors == {}


def test_a_worker_that_cannot_watch_a_socket_opens_no_listener(workers):
    """A worker in the caller's loop can't watch a socket if the loop's epoll is full."""

    def send(_worker, message, *_socks):
        if isinstance(message, OpenListener):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return True

    workers.listeners._send = send
    answer = workers.serve(workers.group(), {"web": Wanted(TCP, (ANY,))}, POD_A)
    assert answer.listeners == {}
    assert isinstance(answer.errors["web"], ShortageError)
    assert workers.listeners._open == {}


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_listeners_close_before_and_open_after_a_change_of_endpoints(make, protocol):
    """A worker that reads changes late must not accept a client without an endpoint."""
    pool, sent = await make(1), []
    pods = pool.pods(1, protocol)
    web = pool.serve(pods, protocol=protocol)
    link = pool.workers[0].link
    link.send = lambda message, *_socks: sent.append(type(message))
    link.send_later = lambda make: sent.append(type(make()))
    pool.update(web)
    pool.update(web, pods[0].address)
    assert sent == [CloseListener, ChangeGroup, ChangeGroup, OpenListener]


@contextlib.contextmanager
def descriptor_limit(limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_listener_has_one_socket_or_none_when_descriptors_are_scarce(make):
    limit = RESERVE * 2 + 40
    with descriptor_limit(limit):
        pool = await make()
    pod = pool.endpoint()
    twice = limit // 4
    once = limit - RESERVE - twice * 2
    services = [pool.service(pod.address) for _ in range(twice + once)]
    with pytest.raises(BoundError, match="half of the descriptors"):
        pool.service(pod.address)
    sizes = [len(service.listener.workers) for service in services]
    assert sizes == [2] * twice + [1] * once
    # The workers take turns at listeners with one socket, and each of these listeners serves.
    assert {service.listener.workers for service in services[-4:]} == {(0,), (1,)}
    for service in services[-4:]:
        pool.keep(await dial(service.address))
        await pod.accept()
    services[0].close()
    pool.service(pod.address)


async def test_closed_listeners_leave_no_descriptors(pool):
    await pool.plane.refresh()
    before = open_sockets(), pool.plane.state().descriptors
    held = pool.plane._listeners
    for endpoints in ((), (pool.refusing(),)):
        for protocol in list(Protocol) * 5:
            pool.service(*endpoints, protocol=protocol).close()
    await until(lambda: not held._leaving)
    await pool.plane.refresh()
    pool.close_kept()
    assert (open_sockets(), pool.plane.state().descriptors) == before
    assert (held._counts, held._open, held._by_key, held._by_group) == ([0, 0], {}, {}, {})
    assert pool.plane._groups == {}
