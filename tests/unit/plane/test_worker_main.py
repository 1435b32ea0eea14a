import asyncio
import contextlib
import logging
import os
import socket

from tests.port_keys import port_key
from userspace_proxy.model import Protocol, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane import worker, worker_main
from userspace_proxy.plane.messages import (
    AffinityEntries,
    AffinityEntriesSent,
    CloseGroup,
    Drain,
    Drained,
    HandedOver,
    HandOver,
    Logged,
    OpenGroup,
    OpenListener,
    Running,
)

from ..dataplane.peers import RefusingEndpoint, TcpEndpoint, UdpPeer, dial
from ..dataplane.waiting import until
from .control import GROUP, LISTENER, TCP, UDP


async def test_a_starting_worker_drops_privileges_and_reports_its_pid_and_user(idle):
    idle.start()
    running = await idle.hear(Running)
    assert running == Running(os.getpid(), os.geteuid())
    assert idle.confined == 1


async def test_a_memory_error_is_passed_to_the_loops_exception_handler(control, monkeypatch):
    def fail(_message, _sock):
        raise MemoryError

    monkeypatch.setattr(control.main._worker, "apply", fail)
    failures = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: failures.append(context["exception"])
    )
    control.send(Drain(60.0))
    await until(lambda: failures)
    assert isinstance(failures[0], MemoryError)
    assert not control.main.ended.done()


async def test_log_lines_are_forwarded(control):
    dead = control.keep(RefusingEndpoint(socket.SOCK_STREAM))
    client = None
    with contextlib.suppress(ConnectionResetError):
        client = control.keep(await dial(control.serve(dead.address)))
    line = await control.hear(Logged)
    assert line.message.startswith(f"shop/web:http: endpoint ejected: {dead.address} refuses")
    assert line.level == logging.WARNING
    assert line.fields["endpoint"] == str(dead.address)
    assert client is None or await client.was_reset()


async def test_log_lines_are_dropped_and_counted_while_the_control_process_is_busy(control):
    # The control process is too busy to read.
    asyncio.get_running_loop().remove_reader(control.channel._sock.fileno())
    log = logging.getLogger("userspace_proxy.dataplane")
    for _ in range(100):
        log.warning("x" * 100_000)
    assert control.main._channel.waiting_bytes < 2_000_000
    asyncio.get_running_loop().add_reader(control.channel._sock.fileno(), control.channel.read)
    await control.report()
    told = len(control.said(Logged))
    assert 10 <= told < 30
    log.warning("room again")
    await until(lambda: len(control.said(Logged)) == told + 2, "both lines")
    counted, again = control.said(Logged)[-2:]
    assert counted.fields["lines"] == 100 - told
    assert again.message == "room again"


async def test_a_drain_ends_with_the_last_connection(control, pod):
    pairs = [await control.pair(control.serve(pod.address), pod)]
    for _ in range(2):
        control.send(Drain(60.0))
    await control.report()
    assert not control.main.ended.done()
    for peer in pairs[0]:
        peer.close()
    assert await control.hear(Drained) == Drained(0)
    assert await control.main.ended == 0


async def test_a_draining_worker_with_a_flow_takes_no_other_client(control):
    peer, web = control.keep(UdpPeer()), control.keep(TcpEndpoint())
    at = control.serve(peer.address, protocol=UDP)
    control.keep(UdpPeer(to=at)).send(b"hello")
    await peer.receive()
    control.send(OpenListener(LISTENER + 1, GROUP, TCP, web.address), web.sock)
    control.send(Drain(60.0))
    await control.report()
    control.keep(UdpPeer(to=at)).send(b"hello")
    control.keep(await dial(web.address))
    await control.report()
    assert (await control.status()).flows == 1
    assert web.accept_now() is not None


async def test_a_worker_without_a_worker_socket_exits_with_its_control_process(control, pod):
    client, _ = await control.pair(control.serve(pod.address), pod)
    control.channel.close()
    assert await control.main.ended == 1
    control.main.close()
    assert await client.was_reset()


async def test_a_drain_ends_a_worker_without_connections_immediately(idle):
    idle.send(Drain(0.0))
    assert await idle.hear(Drained) == Drained(0)
    assert await idle.main.ended == 0


POD = SocketAddress("10.0.0.1", 80)
ALICE, BOB = (("203.0.113.1", POD, 0.0), ("203.0.113.2", POD, 1.0))


def open_group(control, number, label, *entries):
    control.send(OpenGroup(number, port_key(label), Serving((POD,), affinity_timeout_s=60)))
    control.send(AffinityEntries(label, list(entries)))


def handed_over(control):
    """Return the messages that the worker has sent to its successor."""
    kinds = HandedOver, AffinityEntries, AffinityEntriesSent
    return [message for message in control.got if isinstance(message, kinds)]


async def test_a_successor_receives_sockets_first_and_affinity_entries_in_turns(
    control, monkeypatch
):
    monkeypatch.setattr(worker, "_ENTRIES_A_MESSAGE", 1)
    for number, label in enumerate(("shop/a", "shop/b")):
        open_group(control, number, label, ALICE, BOB)
    control.send(HandOver())
    await until(lambda: control.said(AffinityEntriesSent), "the last affinity entries")
    first, *entries, _last = handed_over(control)
    assert isinstance(first, HandedOver)
    assert [(part.label, [entry[0] for entry in part.entries]) for part in entries] == [
        ("shop/a", [ALICE[0]]),
        ("shop/b", [ALICE[0]]),
        ("shop/a", [BOB[0]]),
        ("shop/b", [BOB[0]]),
    ]


async def test_a_successor_receives_a_missing_workers_sockets_with_its_index(idle):
    idle.start(1, processes=3)
    at = idle.serve(POD)
    idle.send(OpenListener(-(LISTENER * 3 + 2), GROUP, Protocol.TCP, at), idle.sock)
    idle.send(HandOver())
    await until(lambda: idle.said(AffinityEntriesSent), "the last affinity entries")
    assert [(one.worker, one.is_last) for one in idle.said(HandedOver)] == [(2, False), (1, True)]


async def test_affinity_entries_are_not_sent_to_a_process_that_does_not_read(control, monkeypatch):
    monkeypatch.setattr(worker_main, "_MAX_ENTRIES_WAITING_BYTES", 0)
    monkeypatch.setattr(worker_main, "PINS_S", 0.05)
    open_group(control, 1, "shop/a", ALICE)
    control.send(HandOver())
    await until(lambda: control.said(AffinityEntriesSent), "the end marker")
    assert [type(message) for message in handed_over(control)] == [HandedOver, AffinityEntriesSent]


async def test_a_turn_of_the_event_loop_sends_few_affinity_entries(control, monkeypatch):
    """Clients are served between the turns."""
    monkeypatch.setattr(worker, "_ENTRIES_A_MESSAGE", 1)
    open_group(control, 1, "shop/a", ALICE, BOB)
    control.send(HandOver())
    await until(lambda: control.said(HandedOver), "the sockets")
    assert not control.said(AffinityEntriesSent)
    await until(lambda: control.said(AffinityEntriesSent), "the last affinity entries")
    assert len(control.said(AffinityEntries)) == 2


async def test_only_affinity_entries_of_the_last_group_with_a_label_are_handed_over(control):
    open_group(control, 1, "shop/a")
    open_group(control, 2, "shop/a")
    control.send(CloseGroup(1))
    control.send(AffinityEntries("shop/a", [ALICE]))
    control.send(CloseGroup(2))
    control.send(AffinityEntries("shop/a", [ALICE]))
    open_group(control, 3, "shop/a", BOB)
    control.send(HandOver())
    await until(lambda: control.said(AffinityEntriesSent), "the last affinity entries")
    assert [entry[0] for part in control.said(AffinityEntries) for entry in part.entries] == [
        BOB[0]
    ]
    assert not control.main.ended.done()
