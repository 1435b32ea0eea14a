import socket
import weakref

import pytest

from tests.port_keys import port_key
from userspace_proxy.dataplane import EndpointGroup, Tuning, Waiting
from userspace_proxy.dataplane.tcp import REDIALS
from userspace_proxy.dataplane.tuning import BATCH
from userspace_proxy.dataplane.waiting_room import (
    PASS_S,
    RETRIES,
    RETRY_S,
    WINDOW,
    WaitingRoom,
)
from userspace_proxy.facts import CounterTable
from userspace_proxy.model import Handling, Hold
from userspace_proxy.model.annotations import HOLD_MAX
from userspace_proxy.model.serving import Serving

from .groups import News
from .peers import RefusingEndpoint
from .rig import UNREACHABLE
from .waiters import HOLD, at_its_limit, count_waiting, limited, waited, waiting
from .waiting import turns, until


async def test_only_the_last_sixteen_of_a_hundred_waiting_clients_are_served_in_order(rig):
    serving = {"handling": Handling(hold=Hold(60, 16))}
    web = rig.service(**serving)
    clients = await waiting(rig, web, 100)
    assert count_waiting(web) == len(rig.connections.open) == 16
    assert [await client.was_reset() for client in clients[:84]] == [True] * 84
    counters = web.group.counters
    assert (counters.waits.total, counters.waits.overflows, counters.refused) == (100, 84, 84)
    pod = rig.endpoint()
    rig.update(web, pod.address, **serving)
    for number, client in enumerate(clients[84:]):
        await client.send(b"%d" % number)
    for number in range(16):
        assert await (await pod.accept()).read() == b"%d" % number
    assert count_waiting(web) == 0


async def test_in_a_full_waiting_room_the_client_with_the_most_waits_loses_its_oldest_wait(rig):
    web = rig.service(handling=Handling(hold=Hold(60, 16)))
    lone = await rig.client(web, source="127.0.0.2")
    await until(lambda: waited(web) == 1)
    greedy = [await rig.client(web) for _ in range(32)]
    await until(lambda: waited(web) == 33)
    late = await rig.client(web, source="127.0.0.3")
    await until(lambda: waited(web) == 34)
    assert [await client.was_reset() for client in greedy[:18]] == [True] * 18
    assert (count_waiting(web), web.group.counters.waits.overflows) == (16, 18)
    pod = rig.endpoint()
    rig.update(web, pod.address, handling=Handling(hold=Hold(60, 16)))
    await lone.send(b"lone")
    assert await (await pod.accept()).read() == b"lone"
    await late.send(b"late")
    served = [await pod.accept() for _ in range(15)]
    assert await served[-1].read() == b"late"


async def test_workers_share_the_limit_of_waiting_clients(build):
    rig = build(Tuning(processes=3))
    web = rig.service(handling=Handling(hold=Hold(60, 7)))
    await waiting(rig, web, 5)
    assert count_waiting(web) == 3


async def test_a_waiting_client_is_reset_at_its_deadline(timed, timers):
    web = timed.service(**HOLD)
    (first,) = await waiting(timed, web, 1)
    timers.advance(30)
    second = await timed.client(web)
    await until(lambda: waited(web) == 2)
    timers.advance(29.9)
    assert count_waiting(web) == 2
    timers.advance(0.1)
    assert await first.was_reset()
    assert count_waiting(web) == 1
    timers.advance(30)
    assert await second.was_reset()
    assert (web.group.counters.waits.timeouts, web.group.counters.refused) == (2, 2)


@pytest.mark.parametrize("is_reset", [False, True], ids=["fin", "rst"])
async def test_a_client_that_gives_up_is_removed_immediately(rig, is_reset):
    web = rig.service(**HOLD)
    (client,) = await waiting(rig, web, 1)
    await client.send(b"early")
    if is_reset:
        client.reset()
    else:
        client.close()
    await until(lambda: not rig.connections.open)
    counters = web.group.counters
    assert (count_waiting(web), counters.waits.client_aborts, counters.refused) == (0, 1, 0)


async def test_a_client_with_only_refusing_endpoints_waits_for_another_endpoint(rig):
    gone = rig.refusing()
    web = rig.service(gone, **HOLD)
    (client,) = await waiting(rig, web, 1)
    await client.send(b"early")
    pod = rig.endpoint()
    rig.update(web, gone, pod.address, **HOLD)
    assert await (await pod.accept()).read() == b"early"
    assert count_waiting(web) == 0
    (served,) = rig.connections.open
    assert not served.client.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER), "close() resets"


async def test_a_client_of_silent_endpoints_waits_after_its_dials(build):
    # All dials together have 0.9 s, enough for two of them even on a slow machine.
    rig = build(Tuning(connect_timeout_s=0.3))
    web = rig.service(rig.silent(), rig.silent(), **HOLD)
    await waiting(rig, web, 1)
    assert web.group.totals().failures == 2
    assert web.group.counters.refused == 0


async def test_a_few_clients_are_redialled_each_second_while_endpoints_fail(timed, timers):
    gone = timed.refusing()
    web = timed.service(gone, **HOLD)
    await waiting(timed, web, 10)
    before = web.group.counters_of(gone).failures
    timers.advance(RETRY_S)
    await until(lambda: web.group.counters_of(gone).failures == before + RETRIES)
    await turns(20)
    assert web.group.counters_of(gone).failures == before + RETRIES
    assert count_waiting(web) == 10


async def test_a_recovered_endpoint_serves_all_waiting_clients_without_an_update(timed, timers):
    gone = timed.keep(RefusingEndpoint(socket.SOCK_STREAM))
    web = timed.service(gone.address, **HOLD)
    await waiting(timed, web, 3 * WINDOW)
    gone.close()
    pod = timed.endpoint(port=gone.address.port)
    timers.advance(RETRY_S)
    for _ in range(3 * WINDOW):
        await pod.accept()
    await until(lambda: count_waiting(web) == 0)
    assert web.group.counters.refused == 0


async def test_a_recovered_endpoint_serves_clients_queued_behind_other_clients(timed, timers):
    gone = timed.keep(RefusingEndpoint(socket.SOCK_STREAM))
    web = timed.service(gone.address, outside=(), inside=("127.0.0.2/32",), **HOLD)
    await waiting(timed, web, 3 * WINDOW)
    client = await timed.client(web, source="127.0.0.2")
    await until(lambda: waited(web) == 3 * WINDOW + 1)
    gone.close()
    pod = timed.endpoint(port=gone.address.port)
    web.group.answered_elsewhere(gone.address, timers.now)
    await until(lambda: count_waiting(web) == 3 * WINDOW)
    await client.send(b"ping")
    assert await (await pod.accept()).read() == b"ping"


async def test_waiting_clients_are_redialled_after_the_rest_of_a_pass_has_left(timed, timers):
    gone = timed.keep(RefusingEndpoint(socket.SOCK_STREAM))
    web = timed.service(gone.address, **HOLD)
    clients = await waiting(timed, web, RETRIES + 1)
    timers.advance(RETRY_S)
    # One client remains in this pass.
    await until(lambda: not web.group.waiting_room._clients.dialled)
    clients[-1].reset()
    await until(lambda: count_waiting(web) == RETRIES)
    gone.close()
    pod = timed.endpoint(port=gone.address.port)
    timers.advance(RETRY_S)
    for _ in range(RETRIES):
        await pod.accept()


async def test_a_new_endpoint_is_dialled_for_only_one_client_until_it_answers(rig):
    web = rig.service(**HOLD)
    await waiting(rig, web, 3 * WINDOW)
    rig.update(web, rig.silent(), **HOLD)
    await turns(20)
    assert sum(c.endpoint is not None for c in rig.connections.open) == 1
    assert count_waiting(web) == 3 * WINDOW


async def test_removing_hold_resets_waiting_clients(rig):
    web = rig.service(**HOLD)
    clients = await waiting(rig, web, 3 * WINDOW)
    rig.update(web)
    for client in clients:
        assert await client.was_reset()
    assert web.group.counters.refused == 3 * WINDOW


async def test_waiting_clients_are_reset_when_a_drain_ends(timed, timers):
    web = timed.service(**HOLD)
    (client,) = await waiting(timed, web, 1)
    drained: list[int] = []
    timed.dataplane.drain(10, drained.append)
    timers.advance(9.9)
    assert count_waiting(web) == 1
    timers.advance(0.1)
    assert drained == [1]
    assert await client.was_reset()


async def test_the_number_of_waiting_clients_and_the_longest_wait_are_reported(timed, timers):
    web = timed.service(**HOLD)
    assert web.group.waiting(timers.now) == Waiting()
    await waiting(timed, web, 2)
    assert web.group.waiting(timers.now + 12) == Waiting(2, 12.0)


async def test_many_expired_waits_end_in_batches(timed, timers):
    web = timed.service(**HOLD)
    await waiting(timed, web, BATCH + 10)
    timers.jump(60)
    assert count_waiting(web) == 10
    timers.jump(0)
    assert count_waiting(web) == 0


async def test_connections_beyond_the_limit_are_served_in_order_as_other_connections_end(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address, **limited(2))
    first = [await rig.pair(web, pod) for _ in range(2)]
    clients = await waiting(rig, web, 3)
    for number, client in enumerate(clients):
        await client.send(b"%d" % number)
    assert (count_waiting(web), len(rig.connections.open)) == (3, 5)
    servers = [server for _, server in first]
    for number in range(3):
        servers[number].reset()
        server = await pod.accept()
        assert await server.read() == b"%d" % number
        assert count_waiting(web) == 2 - number
        servers.append(server)
    assert web.group.counters_of(pod.address).active == 2


async def test_a_new_client_waits_behind_earlier_clients(rig):
    pod, web, _ = await at_its_limit(rig)
    (client,) = await waiting(rig, web, 1)
    await client.send(b"first")
    late, _ = await rig.begun(web.group)
    served = next(connection for connection in rig.connections.open if connection.up)
    served.close()
    # A slot is free, but not for this client.
    late.begin()
    assert await (await pod.accept()).read() == b"first"
    assert (waited(web), count_waiting(web)) == (2, 1)
    assert web.group.waiting_room.is_queueing
    rig.update(web, pod.address, outside=(pod.address,), inside=(), **limited(1))
    assert not web.group.waiting_room.is_queueing, "others may use an endpoint with room"


async def test_a_freed_slot_is_not_kept_for_a_departed_client(timed, timers):
    pod, web, server = await at_its_limit(timed)
    (gone,) = await waiting(timed, web, 1)
    # The client gets its turn, but finds no room.
    timers.advance(RETRY_S)
    await turns(5)
    gone.reset()
    await until(lambda: count_waiting(web) == 0)
    client = await timed.client(web)
    await until(lambda: waited(web) == 2)
    server.reset()
    await until(lambda: count_waiting(web) == 0)
    await client.send(b"next")
    assert await (await pod.accept()).read() == b"next"


async def test_clients_wait_for_a_minute_with_a_limit_but_without_hold(timed, timers):
    _pod, web, _ = await at_its_limit(timed)
    (client,) = await waiting(timed, web, 1)
    timers.advance(59.9)
    assert count_waiting(web) == 1
    timers.advance(0.1)
    assert await client.was_reset()


async def test_clients_without_an_endpoint_are_refused_with_a_limit_but_without_hold(rig):
    _pod, web, _ = await at_its_limit(rig)
    clients = await waiting(rig, web, 3 * WINDOW)
    rig.update(web, **limited(1))
    for client in clients:
        assert await client.was_reset()
    with pytest.raises(ConnectionRefusedError):
        await rig.client(web)


async def test_removing_the_limit_serves_all_waiting_clients(rig):
    pod, web, _ = await at_its_limit(rig)
    await waiting(rig, web, 3 * WINDOW)
    rig.update(web, pod.address)
    for _ in range(3 * WINDOW):
        await pod.accept()
    await until(lambda: count_waiting(web) == 0)


async def test_after_the_limit_is_removed_a_new_client_is_dialled_while_other_clients_wait(rig):
    _pod, web, _ = await at_its_limit(rig)
    await waiting(rig, web, 3)
    # One of the waiting clients has a dial in progress; the others wait for its result.
    rig.update(web, rig.silent())
    late, _ = await rig.begun(web.group)
    late.begin()
    assert late.endpoint is not None
    assert not late.is_waiting


async def test_the_loss_of_all_endpoints_is_reported_once_even_with_a_connection_limit(rig):
    pod = rig.endpoint()
    both = limited(1, hold=Hold(60))
    web = rig.service(pod.address, **both)
    reports: list[int] = []
    web.group.news = News(on_waiting=lambda: reports.append(count_waiting(web)))
    await rig.pair(web, pod)
    await waiting(rig, web, 3)
    assert reports == []
    rig.update(web, **both)
    await turns(20)
    await rig.client(web)
    await until(lambda: count_waiting(web) == 4)
    assert reports == [3]


async def test_each_loss_of_all_endpoints_is_reported(rig):
    web = rig.service(**HOLD)
    reports: list[int] = []
    web.group.news = News(on_waiting=lambda: reports.append(count_waiting(web)))
    for times in (1, 2):
        await rig.client(web)
        await until(lambda times=times: waited(web) == times)
        rig.update(web, rig.endpoint().address, **HOLD)
        await until(lambda: count_waiting(web) == 0)
        rig.update(web, **HOLD)
    assert reports == [0, 0]


async def test_a_client_with_affinity_waits_while_other_clients_are_served(rig):
    pods = {pod.address: pod for pod in (rig.endpoint(), rig.endpoint())}
    web = rig.service(*pods, affinity_timeout_s=60, **limited(1))
    await rig.client(web, source="127.0.0.1")
    await until(lambda: web.group.totals().active == 1)
    pinned, server = next(
        (address, accepted) for address, pod in pods.items() if (accepted := pod.accept_now())
    )
    await waiting(rig, web, 1)
    await rig.client(web, source="127.0.0.2")
    (other,) = pods.keys() - {pinned}
    await pods[other].accept()
    assert count_waiting(web) == 1
    server.reset()
    await pods[pinned].accept()
    await until(lambda: count_waiting(web) == 0)


async def test_a_redial_queued_earlier_does_not_redial_a_client_that_began_to_wait_meanwhile(timed):
    dead = [UNREACHABLE._replace(port=port) for port in range(1, 4)]
    group = EndpointGroup(port_key("shop/web"), Serving(dead, **HOLD))
    connection, _ = await timed.begun(group)
    connection.begin()
    connection.client_timed_out()
    await turns(5)
    assert len(group.waiting_room) == 1
    assert group.totals().failures == 1


async def test_a_redial_queued_earlier_does_not_redial_a_client_that_was_served_meanwhile(rig):
    dead = UNREACHABLE._replace(port=1)
    group = EndpointGroup(port_key("shop/web"), Serving([dead, UNREACHABLE], **HOLD))
    connection, client = await rig.begun(group)
    passed = []
    for number in range(50 * REDIALS):
        rig.connections.redials.add(group, lambda number=number: passed.append(number))
    connection.begin()
    connection.client_timed_out()
    rig.connections.redials.add(group, lambda: passed.append("all"))
    pod = rig.endpoint()
    group.update(Serving([pod.address], **HOLD))
    server = await pod.accept()
    assert "all" not in passed
    await until(lambda: "all" in passed)
    await client.send(b"ping")
    assert await server.read() == b"ping"
    assert (group.counters.shortages, group.counters.refused) == (0, 0)


class Blocked:
    """A client whose own endpoint is at its limit."""

    def __init__(self, room, client_ip="192.0.2.1"):
        self.room, self.client_ip = room, client_ip
        self.resumed, self.is_over = 0, False
        room.wait(self, is_at_limit=True)

    def resume(self):
        self.resumed += 1
        self.room.wait(self, is_at_limit=True)

    def end_wait(self, _cause):
        self.is_over = True
        self.room.left(self)


class Datagrams:
    """A flow that waits for an endpoint at its limit, and takes a free place immediately."""

    client_ip = "192.0.2.1"

    def __init__(self, room, places):
        self.room, self.places, self.is_served = room, places, False
        room.wait(self, is_at_limit=True)

    def resume(self):
        if self.places:
            self.places.pop()
            self.is_served = True
            self.room.served(self, is_proven=False)
        else:
            self.room.wait(self, is_at_limit=True)


class Dialled:
    """A client for which a silent endpoint is dialled."""

    client_ip = "192.0.2.1"

    def __init__(self, room):
        self.resumed = 0
        room.wait(self)

    def resume(self):
        self.resumed += 1


async def test_a_client_leaving_during_its_dial_passes_its_turn_on(timed):
    hold = Hold(60)
    room = WaitingRoom(timed.engine.reactor, 1, CounterTable(), hold)
    clients = [Dialled(room) for _ in range(3)]
    room.update(hold)
    await turns(5)
    assert [client.resumed for client in clients] == [1, 0, 0]
    room.left(clients[0])
    await turns(5)
    assert [client.resumed for client in clients] == [1, 1, 0]
    for client in clients[1:]:
        room.left(client)


async def test_clients_leaving_before_their_turn_free_their_memory(timed):
    hold = Hold(60)
    room = WaitingRoom(timed.engine.reactor, 1, CounterTable(), hold)
    clients = [Dialled(room) for _ in range(3 * WINDOW)]
    room.update(hold)
    await turns(5)
    last = weakref.ref(clients[-1])
    while clients:
        room.left(clients.pop())
    await turns(5)
    assert last() is None


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.long), 64])
async def test_above_the_maximum_the_client_with_the_most_waits_loses_a_wait(rig, workers):
    hold = Hold(60, HOLD_MAX)
    room = WaitingRoom(rig.engine.reactor, workers, CounterTable(), hold)
    most = -(-hold.connections // workers)
    lone = Blocked(room, "192.0.2.2")
    greedy = [Blocked(room) for _ in range(2 * most)]
    assert (len(room), lone.is_over, greedy[most].is_over) == (most, False, True)
    for client in (lone, *greedy[most + 1 :]):
        room.left(client)


async def test_connections_ending_in_quick_succession_retry_waiting_clients_once_per_interval(
    timed, timers
):
    hold = Hold(60)
    room = WaitingRoom(timed.engine.reactor, 1, CounterTable(), hold, is_uniform=False)
    clients = [Blocked(room) for _ in range(2 * BATCH)]
    for _ in range(5):
        room.connection_ended()
        await turns(3 * BATCH)
    assert {client.resumed for client in clients} == {1}
    for passes in (2, 3):
        timers.advance(PASS_S)
        await turns(3 * BATCH)
        assert {client.resumed for client in clients} == {passes}
        room.connection_ended()
    for client in clients:
        room.left(client)
    assert timers.waiting == 0


async def test_connections_ending_between_two_checks_each_make_room_for_a_flow(timed, timers):
    room, places = WaitingRoom(timed.engine.reactor, 1, CounterTable(), Hold(60)), []
    flows = [Datagrams(room, places) for _ in range(3 * WINDOW)]
    timers.advance(RETRY_S)
    await turns(5)
    assert len(room) == len(flows)
    places += range(2 * WINDOW)
    for _ in list(places):
        room.connection_ended()
    await turns(3 * WINDOW)
    assert len(room) == WINDOW
    for flow in [flow for flow in flows if not flow.is_served]:
        room.left(flow)
