"""A worker in this process, commanded over a channel as the control process would."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
from dataclasses import asdict

import pytest

from userspace_proxy.dataplane import Serving, Tuning
from userspace_proxy.dataplane.sockets import open_listening
from userspace_proxy.dataplane.workers import channel
from userspace_proxy.dataplane.workers.channel import Channel
from userspace_proxy.dataplane.workers.forwarding import LOGGERS
from userspace_proxy.dataplane.workers.messages import (
    ChangeGroup,
    CloseGroup,
    CloseListener,
    Counted,
    Drain,
    Drained,
    Ejected,
    GroupReport,
    ListenerClosed,
    Logged,
    MoveListener,
    OpenGroup,
    OpenListener,
    PauseListener,
    Report,
    ResumeListener,
    Returned,
    Running,
    Start,
    encode,
)
from userspace_proxy.dataplane.workers.worker import Worker
from userspace_proxy.model import Protocol, SocketAddress

from ..house import open_sockets
from ..peers import Peer, RefusingEndpoint, SilentEndpoint, TcpEndpoint, UdpPeer, dial
from ..waiting import turns, until

GROUP, LISTENER = 3, 7
TCP, UDP = Protocol.TCP, Protocol.UDP


@pytest.fixture
def clean_logging():
    """Give back the handlers and levels that a worker in this process has changed."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    gc.unfreeze()


class Control:
    """The control process's end of the channel."""

    def __init__(self):
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self.got = []
        self.confined = 0
        self.worker = Worker(loop, theirs, confine=self._confine)
        self.channel = Channel(
            loop, ours, receive=lambda message, _: self.got.append(message), lost=lambda: None
        )
        self.send = self.channel.send
        self.guests = [self.channel, self.worker]
        self._reports = 0

    def _confine(self, *, keeps_net_raw):
        assert not keeps_net_raw
        self.confined += 1

    def keep(self, guest):
        """Close it in the end."""
        self.guests.append(guest)
        return guest

    def start(self, index=0, **tuning):
        self.send(Start(index, asdict(Tuning(**tuning)), {"userspace_proxy": logging.INFO}))

    def serve(self, *endpoints, protocol=TCP, affinity_timeout_s=None):
        """Have it serve these endpoints; return the address, whose socket stays here, too."""
        at = SocketAddress("127.0.0.1", 0)
        self.sock = self.keep(open_listening(protocol, at, freebind=False))
        at = SocketAddress(*self.sock.getsockname())
        self.send(OpenGroup(GROUP, "shop/web:http", asdict(Serving(endpoints, affinity_timeout_s))))
        self.send(OpenListener(LISTENER, GROUP, str(protocol), *at, True), self.sock)
        return at

    def said(self, kind):
        """Return the messages of a kind that have come."""
        return [message for message in self.got if isinstance(message, kind)]

    async def hear(self, kind):
        """Return the next message of a kind."""
        await until(lambda: self.said(kind), kind.__name__)
        message = self.said(kind)[0]
        self.got.remove(message)
        return message

    async def report(self):
        """Return what it answers to a report, groups in their form."""
        self._reports += 1
        self.send(Report(self._reports))
        counted = await self.hear(Counted)
        assert counted.number == self._reports
        return counted._replace(groups=[GroupReport(*group) for group in counted.groups])

    async def pair(self, at, pod):
        """Return both ends of a new connection through the worker."""
        return self.keep(await dial(at)), self.keep(await pod.accept())


@pytest.fixture
async def idle(clean_logging):
    """A worker that was told nothing yet."""
    before = open_sockets()
    control = Control()
    yield control
    for guest in reversed(control.guests):
        guest.close()
    control.worker.close()
    await turns(2)
    assert open_sockets() == before, "a socket was left open"


@pytest.fixture
async def control(idle):
    """A worker that has begun."""
    idle.start()
    await idle.hear(Running)
    return idle


@pytest.fixture
def pod(control):
    return control.keep(TcpEndpoint())


# -- beginning -----------------------------------------------------------------


async def test_it_gives_up_privileges_and_tells_who_it_is(idle):
    idle.start()
    running = await idle.hear(Running)
    assert running == Running(os.getpid(), os.geteuid())
    assert idle.confined == 1


async def test_its_turns_begin_at_its_own_number(idle):
    pods = [idle.keep(TcpEndpoint()) for _ in range(3)]
    idle.start(index=2)
    at = idle.serve(*(pod.address for pod in pods))
    await idle.pair(at, pods[2])
    await idle.pair(at, pods[0])


# -- serving -------------------------------------------------------------------


async def test_it_serves_the_sockets_that_come(control, pod):
    client, server = await control.pair(control.serve(pod.address), pod)
    await client.send(b"question")
    assert await server.read() == b"question"


async def test_it_follows_changes_of_endpoints(control, pod):
    other = control.keep(TcpEndpoint())
    at = control.serve(pod.address)
    client, server = await control.pair(at, pod)
    control.send(ChangeGroup(GROUP, [pod.address], [(0, other.address)], {}))
    await control.report()
    await control.pair(at, other)
    await client.send(b"still here")
    assert await server.read() == b"still here"


async def test_it_follows_changes_of_everything_else_and_keeps_the_endpoints(control, pod):
    other = control.keep(TcpEndpoint())
    at = control.serve(pod.address, other.address)
    for others, expected in (
        ({"affinity_timeout_s": 60.0}, [pod] * 3),
        ({"outside": [other.address], "inside": ["127.0.0.2/32"]}, [other] * 3),
        ({"inside": ["127.0.0.0/8"], "balance": "least-connections"}, [pod] * 3),
        ({"outside": None, "affinity_timeout_s": None}, [other] * 3),
    ):
        control.send(ChangeGroup(GROUP, [], [], others))
        await control.report()
        for server in expected:
            await control.pair(at, server)


async def test_a_client_that_comes_with_its_endpoint_is_served_whichever_is_seen_first(control):
    pods = [control.keep(TcpEndpoint()) for _ in range(20)]
    at = control.serve()
    for pod in pods:
        client = control.keep(Peer(socket.socket()))
        client.sock.connect_ex(at)
        control.send(ChangeGroup(GROUP, [], [(0, pod.address)], {}))
        control.keep(await pod.accept())
        control.send(ChangeGroup(GROUP, [pod.address], [], {}))
        await control.report()


async def test_a_listener_that_refuses_is_left_alone_until_it_is_resumed(control, pod):
    sock = control.keep(open_listening(TCP, SocketAddress("127.0.0.1", 0), freebind=False))
    at = SocketAddress(*sock.getsockname())
    control.send(OpenGroup(GROUP, "shop/web:http", asdict(Serving([pod.address]))))
    control.send(OpenListener(LISTENER, GROUP, "TCP", *at, False), sock)
    control.keep(await dial(at))
    await control.report()
    assert (await control.report()).connections == 0
    control.send(ResumeListener(LISTENER))
    await pod.accept()


async def test_a_paused_listener_is_left_alone_until_it_is_resumed(control, pod):
    at = control.serve(pod.address)
    control.send(PauseListener(LISTENER))
    await control.report()
    control.keep(await dial(at))
    await control.report()
    assert (await control.report()).connections == 0
    control.send(ResumeListener(LISTENER))
    await pod.accept()


async def test_a_closed_listener_is_told_and_its_connections_go_on(control, pod):
    client, server = await control.pair(control.serve(pod.address), pod)
    control.sock.close()
    control.send(CloseListener(LISTENER))
    control.send(CloseGroup(GROUP))
    assert await control.hear(ListenerClosed) == ListenerClosed(LISTENER)
    await client.send(b"still here")
    assert await server.read() == b"still here"
    assert (await control.report()).connections == 1


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_a_socket_may_come_again_after_it_was_closed(control, protocol):
    """The control process holds it, so the kernel doesn't forget it when we close our copy."""
    pod = control.keep(TcpEndpoint() if protocol is TCP else UdpPeer())
    at = control.serve(pod.address, protocol=protocol)
    for _ in range(3):
        control.send(CloseListener(LISTENER))
        control.send(OpenListener(LISTENER, GROUP, str(protocol), *at, True), control.sock)
    await control.report()
    if protocol is TCP:
        await control.pair(at, pod)
    else:
        control.keep(UdpPeer(to=at)).send(b"question")
        assert await pod.receive() == b"question"
    assert control.said(Logged) == []


async def test_to_close_what_it_never_heard_of_is_told_all_the_same(control):
    control.send(CloseListener(99))
    for message in (
        MoveListener(99, 99),
        PauseListener(99),
        ResumeListener(99),
        CloseGroup(99),
    ):
        control.send(message)
    control.send(Ejected(99, ("10.0.0.1", 80), False))
    control.send(Returned(99, ("10.0.0.1", 80)))
    assert await control.hear(ListenerClosed) == ListenerClosed(99)
    await control.report()


# -- reports -------------------------------------------------------------------


async def test_a_report_tells_what_is_new(control, pod):
    client, server = await control.pair(control.serve(pod.address), pod)
    await client.send(b"12345")
    await server.read_exactly(5)
    (group,) = (await control.report()).groups
    assert group.group == GROUP
    assert group.endpoints == [[list(pod.address), 1, 1, 0, 5, 0, 0]]
    client.close()
    server.close()

    async def is_over():
        groups = (await control.report()).groups
        return groups and groups[0].endpoints == [[list(pod.address), -1, 0, 0, 0, 0, 0]]

    while not await is_over():
        pass
    assert (await control.report()).groups == []


async def test_a_report_tells_of_descriptors(control, pod):
    before = await control.report()
    assert before.is_accepting
    await control.pair(control.serve(pod.address), pod)
    after = await control.report()
    assert (after.connections, after.descriptors - before.descriptors) == (1, 3)
    assert after.descriptor_limit == before.descriptor_limit > 0


async def test_the_turns_that_orders_take_are_counted(control):
    # It has no socket but the channel's, so these are all.
    before, after = await control.report(), await control.report()
    assert sum(after.turns) > sum(before.turns)
    assert after.turns_s > before.turns_s


async def test_the_loop_goes_round_while_thousands_of_commands_wait(control, monkeypatch):
    monkeypatch.setattr(channel, "_READ_S", 0)
    command = OpenGroup(0, "shop/web:http", asdict(Serving()))
    for number in range(20_000):
        control.send(command._replace(group=number))
    read, most = 0, 0
    while read < 20_000:
        await turns(1)
        before, read = read, len(control.worker._groups)
        most = max(most, read - before)
    # Two reads at most, as our own task is resumed in the next round: 16 KiB each, and the
    # message that began in the one before.
    assert 0 < most <= 2 * (channel._READ_BYTES / len(encode(command)) + 1)


async def test_reports_are_answered_in_order(control):
    for number in range(100, 105):
        control.send(Report(number))
    await until(lambda: len(control.said(Counted)) == 5)
    assert [counted.number for counted in control.got] == list(range(100, 105))


async def test_a_flow_whose_endpoint_has_left_is_over_in_the_report(control):
    pod, other = control.keep(UdpPeer()), control.keep(UdpPeer())
    at = control.serve(pod.address, protocol=UDP)
    client = control.keep(UdpPeer(to=at))
    client.send(b"12345")
    await pod.receive()
    assert (await control.report()).groups[0].endpoints == [[list(pod.address), 1, 1, 0, 5, 0, 0]]
    client.send(b"123")
    await pod.receive()
    control.send(ChangeGroup(GROUP, [pod.address], [(0, other.address)], {}))
    assert (await control.report()).groups[0].endpoints == [[list(pod.address), -1, 0, 0, 3, 0, 0]]


# -- what others learn -----------------------------------------------------------


async def test_an_ejection_and_its_end_are_told(control):
    dead = control.keep(RefusingEndpoint(socket.SOCK_STREAM))
    pod = control.keep(TcpEndpoint())
    at = control.serve(dead.address, pod.address)
    await control.pair(at, pod)
    assert await control.hear(Ejected) == Ejected(GROUP, list(dead.address), False)
    (group,) = (await control.report()).groups
    ((address, left),) = group.ejected
    assert (address, 0 < left <= 5) == (list(dead.address), True)
    control.worker._groups[GROUP].answered(dead.address)
    assert await control.hear(Returned) == Returned(GROUP, list(dead.address))


async def test_what_another_worker_has_ejected_is_not_dialled(control, pod):
    silent = control.keep(SilentEndpoint())
    at = control.serve(silent.address, pod.address)
    control.send(Ejected(GROUP, silent.address, True))
    await control.report()
    for _ in range(4):
        await control.pair(at, pod)
    assert (await control.report()).groups[0].endpoints == [[list(pod.address), 4, 4, 0, 0, 0, 0]]
    assert control.said(Ejected) == []


async def test_where_another_worker_met_silence_alone_the_client_is_reset_at_once(control):
    silent = control.keep(SilentEndpoint())
    at = control.serve(silent.address)
    control.send(Ejected(GROUP, silent.address, True))
    await control.report()
    assert await control.keep(await dial(at)).was_reset()
    (group,) = (await control.report()).groups
    assert group.endpoints == [], "nothing was dialled"


async def test_what_another_worker_has_reached_is_dialled_again(control, pod):
    other = control.keep(TcpEndpoint())
    at = control.serve(pod.address, other.address)
    control.send(Ejected(GROUP, pod.address, False))
    control.send(Returned(GROUP, pod.address))
    await control.report()
    await control.pair(at, pod)
    assert control.said(Returned) == []


async def test_log_lines_are_told(control):
    dead = control.keep(RefusingEndpoint(socket.SOCK_STREAM))
    client = None
    with contextlib.suppress(ConnectionResetError):
        client = control.keep(await dial(control.serve(dead.address)))
    line = await control.hear(Logged)
    assert (line.message, line.level) == ("endpoint ejected", logging.WARNING)
    assert line.fields["endpoint"] == str(dead.address)
    assert client is None or await client.was_reset()


async def test_log_lines_are_lost_when_nobody_takes_them(control):
    # The control process is busy: it doesn't read.
    asyncio.get_running_loop().remove_reader(control.channel._sock.fileno())
    log = logging.getLogger("userspace_proxy.dataplane")
    for _ in range(100):
        log.warning("x" * 100_000)
    assert control.worker._channel.waiting_bytes < 2_000_000
    asyncio.get_running_loop().add_reader(control.channel._sock.fileno(), control.channel.read)
    await control.report()
    told = len(control.said(Logged))
    assert 10 <= told < 30
    log.warning("room again")
    await until(lambda: len(control.said(Logged)) == told + 2, "both lines")
    counted, again = control.said(Logged)[-2:]
    assert counted.fields["count"] == 100 - told
    assert again.message == "room again"


# -- the end -------------------------------------------------------------------


async def test_a_drain_ends_it_when_the_last_connection_has_ended(control, pod):
    pairs = [await control.pair(control.serve(pod.address), pod)]
    for _ in range(2):
        control.send(Drain(60.0))
    await control.report()
    assert not control.worker.ended.done()
    for peer in pairs[0]:
        peer.close()
    assert await control.hear(Drained) == Drained(0)
    assert await control.worker.ended == 0


async def test_a_drain_tells_how_many_were_reset(control, pod):
    at = control.serve(pod.address)
    pairs = [await control.pair(at, pod) for _ in range(3)]
    control.send(Drain(0.0))
    assert await control.hear(Drained) == Drained(3)
    assert [await client.was_reset() for client, _ in pairs] == [True] * 3


async def test_it_ends_at_once_when_nobody_commands_it(control, pod):
    client, _ = await control.pair(control.serve(pod.address), pod)
    control.channel.close()
    assert await control.worker.ended == 1
    control.worker.close()
    assert await client.was_reset()


async def test_one_that_was_told_nothing_ends_too(idle):
    idle.send(Drain(0.0))
    assert await idle.hear(Drained) == Drained(0)
    assert await idle.worker.ended == 0
