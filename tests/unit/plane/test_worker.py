"""A worker commanded over its channel; test_link.py also tests workers in the plane's loop."""

import asyncio
import contextlib
import socket

import msgspec

from tests.port_keys import port_key
from userspace_proxy.dataplane import DataPlane, Engine
from userspace_proxy.model import Balance, Handling, SocketAddress
from userspace_proxy.model.serving import Serving
from userspace_proxy.plane.channel import MAX_FRAME_BYTES
from userspace_proxy.plane.messages import (
    AffinityEntries,
    ChangeGroup,
    CloseGroup,
    CloseListener,
    Counted,
    Ejected,
    ListenerClosed,
    MoveListener,
    OpenGroup,
    OpenListener,
    Report,
    Returned,
)
from userspace_proxy.plane.worker import _ENDPOINTS_A_MESSAGE, Worker

from ..dataplane.limits import MIB, Limit
from ..dataplane.peers import Peer, RefusingEndpoint, SilentEndpoint, TcpEndpoint, UdpPeer, dial
from ..dataplane.waiting import until
from .control import GROUP, LISTENER, TCP, UDP
from .reports import counted

POD = SocketAddress("10.0.0.1", 80)


async def test_the_round_robin_of_a_worker_starts_at_the_workers_index(idle):
    pods = [idle.keep(TcpEndpoint()) for _ in range(3)]
    idle.start(index=2)
    at = idle.serve(*(pod.address for pod in pods))
    await idle.pair(at, pods[2])
    await idle.pair(at, pods[0])


async def test_a_group_change_without_endpoints_applies_and_keeps_the_endpoints(control, pod):
    other = control.keep(TcpEndpoint())
    at = control.serve(pod.address, other.address)
    both = (pod.address, other.address)
    for others, expected in (
        (Serving(affinity_timeout_s=60), [pod] * 3),
        (Serving((), 60, outside=both[1:], inside=("127.0.0.2/32",)), [other] * 3),
        (
            Serving(
                (),
                60,
                outside=both[1:],
                inside=("127.0.0.0/8",),
                handling=Handling(balance=Balance.LEAST_CONNECTIONS),
            ),
            [pod] * 3,
        ),
        (Serving(handling=Handling(balance=Balance.LEAST_CONNECTIONS)), [other] * 3),
    ):
        control.send(ChangeGroup(GROUP, [], [], others))
        await control.report()
        for server in expected:
            await control.pair(at, server)


async def test_a_client_and_its_endpoint_may_arrive_in_either_order(control):
    pods = [control.keep(TcpEndpoint()) for _ in range(20)]
    at = control.serve()
    for pod in pods:
        client = control.keep(Peer(socket.socket()))
        client.sock.connect_ex(at)
        control.send(ChangeGroup(GROUP, [], [(0, pod.address)]))
        control.keep(await pod.accept())
        control.send(ChangeGroup(GROUP, [pod.address], []))
        await control.report()


async def test_a_closed_listener_accepts_no_connection_until_reopened(control, pod):
    at = control.serve(pod.address)
    control.send(CloseListener(LISTENER))
    await control.report()
    control.keep(await dial(at))
    await control.report()
    assert (await control.status()).connections == 0
    control.send(OpenListener(LISTENER, GROUP, TCP, at), control.sock)
    await pod.accept()


async def test_commands_about_unknown_or_closed_groups_do_not_end_the_worker(control):
    control.send(OpenGroup(1, port_key("shop/web:http"), Serving((POD,), 60)))
    control.send(CloseGroup(1))
    control.send(AffinityEntries("shop/web:http", [("203.0.113.1", POD, 1.0)]))
    control.send(CloseListener(99))
    control.send(MoveListener(99, 99))
    control.send(CloseGroup(99))
    control.send(Ejected(99, POD, False))
    control.send(Returned(99, POD))
    assert await control.hear(ListenerClosed) == ListenerClosed(99)
    await control.report()
    assert not control.main.ended.done()


async def test_an_affinity_entry_of_an_earlier_worker_is_used(control, pod):
    at = control.serve(POD, pod.address, affinity_timeout_s=60)
    control.send(AffinityEntries("shop/web:http", [("127.0.0.1", pod.address, 0.0)]))
    await control.pair(at, pod)
    assert await control.counted() == {pod.address: {"active": 1, "connections": 1}}


async def test_a_report_contains_only_counts_since_the_last_report(control, pod):
    client, server = await control.pair(control.serve(pod.address), pod)
    await client.send(b"12345")
    await server.read_exactly(5)
    (group,) = (await control.report()).groups
    assert group.group == GROUP
    assert [counted(each) for each in group.endpoints] == [
        (pod.address, {"active": 1, "connections": 1, "received_bytes": 5})
    ]
    client.close()
    server.close()

    async def is_over():
        groups = (await control.report()).groups
        return groups and counted(groups[0].endpoints[0]) == (pod.address, {"active": -1})

    while not await is_over():
        pass
    assert (await control.report()).groups == []
    assert not control.main._worker._differences, "differences at rest are not kept"


async def test_a_report_contains_the_used_memory_and_the_memory_limit(control):
    limit = Limit(190)
    control.main._worker._dataplane.engine.memory.watch(lambda: [limit])
    status = await control.status()
    assert (status.memory_bytes, status.memory_limit_bytes) == (190 * MIB, 200 * MIB)
    assert status.is_short_of_memory
    assert status.was_short_of_memory


async def test_event_loop_iterations_for_commands_are_counted(control):
    # The channel is the worker's only socket, so it causes all iterations.
    before, after = await control.status(), await control.status()
    assert sum(after.iterations) > sum(before.iterations)
    assert after.iterations_s > before.iterations_s


async def test_reports_requested_during_a_report_are_merged(control):
    """A worker that was stopped reads all requests that readers sent in the meantime."""
    for group in range(10, 15):
        control.send(OpenGroup(group, port_key(f"shop/web:{group}"), Serving()))
    for number in range(100, 105):
        control.send(Report(number))
    await until(lambda: control.said(Counted) and control.said(Counted)[-1].number == 104)
    assert [counted.number for counted in control.got] == [100, 104]


async def test_a_report_about_many_endpoints_is_split(control, monkeypatch):
    monkeypatch.setattr("userspace_proxy.plane.worker._ENDPOINTS_A_MESSAGE", 4)
    pods = tuple(SocketAddress(f"10.0.0.{number}", 80) for number in range(3))
    for group in range(10, 15):
        control.send(OpenGroup(group, port_key(f"shop/web:{group}"), Serving(pods)))
        for pod in pods:
            control.send(Ejected(group, pod, False))
    control.send(Report(7))
    await until(lambda: control.said(Counted) and control.said(Counted)[-1].number)
    parts = control.said(Counted)
    assert [part.number for part in parts] == [0, 0, 7]
    assert [[report.group for report in part.groups] for part in parts] == [
        [10, 11],
        [12, 13],
        [14],
    ]
    assert {len(report.ejected) for part in parts for report in part.groups} == {3}


async def test_the_largest_parts_of_a_report_fit_in_a_frame(control):
    """One report contains the maximum number of new endpoints, and each is also ejected."""
    worker = control.main._worker
    counts = (_ENDPOINTS_A_MESSAGE // 2 - 1, 10_000, 10_000)
    for number, count in enumerate(counts):
        pods = tuple(
            SocketAddress(f"2001:db8:{'ffff:' * 5}{n:04x}", 65535) for n in range(100, count + 100)
        )
        worker.apply(OpenGroup(number, port_key("shop/web:http"), Serving(pods)))
        group = worker._groups[number]
        for pod in pods:
            counters = group.counters_of(pod)
            counters.received_bytes = counters.sent_bytes = 1 << 50
            group.balancers.current.failed(pod, worker._dataplane.engine.clock(), is_silent=False)
    control.send(Report(7))
    await until(lambda: control.said(Counted) and control.said(Counted)[-1].number)
    parts = control.said(Counted)
    assert [[report.group for report in part.groups] for part in parts] == [[0, 1], [2], []]
    assert max(len(msgspec.json.encode(part)) for part in parts) < MAX_FRAME_BYTES


async def test_a_report_counts_the_flow_of_a_removed_endpoint_as_ended(control):
    pod, other = control.keep(UdpPeer()), control.keep(UdpPeer())
    at = control.serve(pod.address, protocol=UDP)
    client = control.keep(UdpPeer(to=at))
    client.send(b"12345")
    await pod.receive()
    assert await control.counted() == {
        pod.address: {"active": 1, "connections": 1, "received_bytes": 5}
    }
    client.send(b"123")
    await pod.receive()
    control.send(ChangeGroup(GROUP, [pod.address], [(0, other.address)]))
    assert await control.counted() == {pod.address: {"active": -1, "received_bytes": 3}}
    control.send(CloseGroup(GROUP))
    await control.report()
    assert control.main._worker._differences == {}


async def test_a_report_stops_if_sending_a_part_loses_the_control_process():
    with contextlib.closing(DataPlane(Engine(asyncio.get_running_loop()))) as dataplane:
        sent = []

        def lose(message):
            sent.append(message.number)
            worker.stop_reports()

        worker = Worker(0, dataplane, lose, has_process=True)
        worker.apply(Report(1))
        worker.apply(Report(2))
    assert sent == [1, 2]


async def test_an_ejection_and_its_end_are_reported(control):
    dead = control.keep(RefusingEndpoint(socket.SOCK_STREAM))
    pod = control.keep(TcpEndpoint())
    at = control.serve(dead.address, pod.address)
    await control.pair(at, pod)
    assert await control.hear(Ejected) == Ejected(GROUP, dead.address, False)
    (group,) = (await control.report()).groups
    ((address, left),) = group.ejected
    assert (address, 0 < left <= 5) == (dead.address, True)
    control.main._worker._groups[GROUP].answered(dead.address, 0.0)
    assert await control.hear(Returned) == Returned(GROUP, dead.address)


async def test_a_client_is_reset_without_a_dial_if_another_worker_ejected_the_endpoint(control):
    silent = control.keep(SilentEndpoint())
    at = control.serve(silent.address)
    control.send(Ejected(GROUP, silent.address, True))
    await control.report()
    assert await control.keep(await dial(at)).was_reset()
    (group,) = (await control.report()).groups
    assert group.endpoints == [], "nothing was dialled"


async def test_a_timeout_of_a_dial_begun_before_another_workers_success_ejects_no_endpoint(idle):
    silent, pod = idle.keep(SilentEndpoint()), idle.keep(TcpEndpoint())
    idle.start(connect_timeout_s=0.5)
    at = idle.serve(silent.address, pod.address)
    await idle.report()
    idle.keep(await dial(at))
    await until(lambda: idle.main._worker._dataplane.connections.open, "a dial")
    idle.send(Ejected(GROUP, silent.address, True))
    idle.send(Returned(GROUP, silent.address))
    idle.keep(await pod.accept())
    (group,) = (await idle.report()).groups
    assert (group.ejected, idle.said(Ejected)) == ([], [])


async def test_an_endpoint_reached_by_another_worker_is_dialled_again(control, pod):
    other = control.keep(TcpEndpoint())
    at = control.serve(pod.address, other.address)
    control.send(Ejected(GROUP, pod.address, False))
    control.send(Returned(GROUP, pod.address))
    await control.report()
    await control.pair(at, pod)
    assert control.said(Returned) == []
