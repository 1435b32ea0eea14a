"""Which workers serve a listener, and what becomes of it; what clients see is in test_base.py."""

import contextlib
import resource

import pytest

from userspace_proxy.dataplane import Serving
from userspace_proxy.dataplane.workers import shared_listeners
from userspace_proxy.dataplane.workers.messages import (
    CloseListener,
    MoveListener,
    OpenListener,
    PauseListener,
    ResumeListener,
)
from userspace_proxy.dataplane.workers.shared_group import SharedGroup
from userspace_proxy.dataplane.workers.shared_listeners import SharedListeners
from userspace_proxy.errors import ListenError, ShortageError
from userspace_proxy.model import Protocol, SocketAddress

from ..house import open_sockets
from ..peers import UdpPeer, dial
from ..waiting import until

TCP, UDP = Protocol.TCP, Protocol.UDP
BOTH = pytest.mark.parametrize("protocol", list(Protocol))
ANY = SocketAddress("127.0.0.1", 0)
POD_A = SocketAddress("10.0.0.1", 80)


class Workers:
    """Two of them, who keep what they are told; the first may be dead."""

    def __init__(self):
        self.heard = []
        self.dead = set()
        self.listeners = SharedListeners(2, 10_000, self.send)

    def send(self, worker, message, *_socks):
        if worker in self.dead:
            return False
        self.heard.append((worker, type(message)))
        return True

    def group(self, *endpoints, **others):
        return SharedGroup(1, "shop/web:http", Serving(endpoints, **others))

    def hear(self):
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def workers():
    before = open_sockets()
    workers = Workers()
    yield workers
    workers.listeners.close_all()
    assert open_sockets() == before, "a socket was left open"


def both(kind):
    return [(0, kind), (1, kind)]


# -- what workers hear -------------------------------------------------------------


@BOTH
def test_every_worker_hears_of_a_listener_and_of_its_end(workers, protocol):
    listener = workers.listeners.open(workers.group(POD_A), protocol, ANY, freebind=False)
    assert workers.hear() == both(OpenListener)
    for _ in range(2):
        listener.close()
    assert workers.hear() == both(CloseListener)


@pytest.mark.parametrize(
    ("protocol", "refusing", "serving"),
    [
        pytest.param(TCP, PauseListener, ResumeListener, id="tcp"),
        pytest.param(UDP, CloseListener, OpenListener, id="udp"),
    ],
)
def test_workers_look_away_while_it_refuses(workers, protocol, refusing, serving):
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, protocol, ANY, freebind=False)
    workers.hear()
    for _ in range(2):
        workers.listeners.refuse(group)
    assert (workers.hear(), listener.is_serving) == (both(refusing), False)
    for _ in range(2):
        assert workers.listeners.serve(group) is None
    assert (workers.hear(), listener.is_serving) == (both(serving), True)


@pytest.mark.parametrize(("protocol", "count"), [(TCP, 2), (UDP, 1)])
def test_a_new_worker_hears_of_all_that_it_is_to_look_at_now_or_later(workers, protocol, count):
    for endpoints in ((POD_A,), ()):
        workers.listeners.open(workers.group(*endpoints), protocol, ANY, freebind=False)
    workers.hear()
    workers.listeners.tell(1)
    assert workers.hear() == [(1, OpenListener)] * count


@BOTH
def test_workers_hear_whose_a_listener_is_after_what_they_are_to_refuse(workers, protocol):
    listener = workers.listeners.open(workers.group(POD_A), protocol, ANY, freebind=False)
    workers.hear()
    refusing = PauseListener if protocol is TCP else CloseListener
    serving = ResumeListener if protocol is TCP else OpenListener
    for endpoints, expected in [
        ((POD_A,), both(MoveListener)),
        ((), [*both(refusing), *both(MoveListener)]),
        ((POD_A,), [*both(MoveListener), *both(serving)]),
    ]:
        group = workers.group(*endpoints)
        workers.listeners.hand_over(listener, group)
        assert (workers.hear(), listener.group) == (expected, group)
        assert group.listeners == {listener}
        assert listener.is_serving == bool(endpoints)


# -- UDP ports that refuse ------------------------------------------------------------


def is_ours(listener):
    return bool(listener.sockets.by_worker)


def test_a_udp_port_is_ours_until_all_workers_have_closed_it(workers):
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, UDP, ANY, freebind=False)
    workers.listeners.refuse(group)
    workers.listeners.closed_by(0, listener.number)
    assert is_ours(listener)
    workers.listeners.closed_by(1, listener.number)
    assert not is_ours(listener)


def test_a_udp_port_that_refuses_twice_is_kept_until_every_copy_is_closed(workers):
    """Else who serves again meanwhile finds it taken: by our own worker."""
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, UDP, ANY, freebind=False)
    workers.listeners.refuse(group)
    workers.listeners.serve(group)
    workers.listeners.refuse(group)
    for is_kept in (True, False):
        for worker in (0, 1):
            workers.listeners.closed_by(worker, listener.number)
        assert is_ours(listener) is is_kept


def test_a_refusing_udp_port_stays_ours_until_it_is_closed(workers):
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, UDP, ANY, freebind=False)
    workers.listeners.refuse(group)
    for worker in (0, 1):
        workers.listeners.closed_by(worker, listener.number)
    with pytest.raises(OSError, match="in use"):
        UdpPeer(port=listener.address.port)
    listener.close()
    for worker in (0, 1):
        workers.listeners.closed_by(worker, listener.number)
    UdpPeer(port=listener.address.port).close()


def test_a_worker_that_ends_holds_nothing_any_more(workers):
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, UDP, ANY, freebind=False)
    workers.listeners.refuse(group)
    workers.listeners.closed_by(1, listener.number)
    workers.listeners.worker_ended(0)
    assert not is_ours(listener)


def test_a_worker_that_is_dead_already_is_not_waited_for(workers):
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, UDP, ANY, freebind=False)
    workers.dead = {0, 1}
    workers.listeners.refuse(group)
    assert not is_ours(listener)


def test_news_of_listeners_that_nobody_knows_are_nothing(workers):
    workers.listeners.closed_by(0, 4711)


# -- what can't be had ------------------------------------------------------------------


def test_of_several_listeners_only_the_one_whose_port_was_taken_refuses(workers):
    group = workers.group(POD_A)
    taken, other = (workers.listeners.open(group, UDP, ANY, freebind=False) for _ in range(2))
    workers.listeners.refuse(group)
    for worker in (0, 1):
        workers.listeners.closed_by(worker, taken.number)
    # As on a kernel that can't hold a port.
    taken.sockets.close()
    with contextlib.closing(UdpPeer(port=taken.address.port)):
        assert isinstance(workers.listeners.serve(group), ListenError)
        assert (taken.is_serving, other.is_serving) == (False, True)
    assert workers.listeners.serve(group) is None


@BOTH
def test_who_can_not_tell_its_clients_apart_serves_nobody(workers, protocol):
    group = workers.group(POD_A)
    listener = workers.listeners.open(group, protocol, ANY, freebind=False)
    group.change(
        Serving([POD_A], admits=[f"10.{n // 128}.{n % 128 * 2}.0/24" for n in range(2000)])
    )
    for _ in range(2):
        assert isinstance(workers.listeners.serve(group), ShortageError)
        assert not listener.is_serving
    group.change(Serving([POD_A]))
    assert workers.listeners.serve(group) is None
    assert listener.is_serving


# -- descriptors -------------------------------------------------------------------


@contextlib.contextmanager
def descriptor_limit(limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_short_of_descriptors_a_listener_has_one_socket_and_then_none(make):
    limit = shared_listeners.RESERVE * 2 + 40
    with descriptor_limit(limit):
        shop = await make()
    pod = shop.endpoint()
    group = shop.plane.open_group("shop/web", Serving([pod.address]))

    def listen():
        return shop.keep(shop.plane.listen(group, TCP, SocketAddress("127.0.0.1", 0)))

    twice = limit // 4
    once = limit - shared_listeners.RESERVE - twice * 2
    listeners = [listen() for _ in range(twice + once)]
    with pytest.raises(ShortageError, match="half of the descriptors"):
        listen()
    sizes = [len(listener.workers) for listener in listeners]
    assert sizes == [2] * twice + [1] * once
    # They take turns, and each serves.
    assert {listener.workers for listener in listeners[-4:]} == {(0,), (1,)}
    for listener in listeners[-4:]:
        shop.keep(await dial(listener.address))
        await pod.accept()
    listeners[0].close()
    listen()


async def test_closed_listeners_leave_nothing_behind(shop):
    await shop.plane.refresh()
    before = open_sockets(), shop.plane.state().descriptors
    listeners = shop.plane._listeners
    group = shop.plane.open_group("shop/web", Serving())
    for protocol in list(Protocol) * 5:
        shop.plane.listen(group, protocol, SocketAddress("127.0.0.1", 0)).close()
    shop.plane.update(group, Serving([shop.refusing()]))
    for protocol in list(Protocol) * 5:
        shop.plane.listen(group, protocol, SocketAddress("127.0.0.1", 0)).close()
    shop.plane.close_group(group)
    await until(lambda: not listeners._leaving)
    await shop.plane.refresh()
    shop.dismiss()
    assert (open_sockets(), shop.plane.state().descriptors) == before
    assert (listeners._counts, listeners._open, shop.plane._groups) == ([0, 0], {}, {})
