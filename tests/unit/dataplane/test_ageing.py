"""Periodic checks of connections: keep-alive, idle timeouts, dead clients, stalled endpoints."""

from __future__ import annotations

import socket

import pytest

from userspace_proxy.dataplane import Tuning, ageing
from userspace_proxy.dataplane.ageing import unanswered
from userspace_proxy.facts.connection_outcome import OWED_AFTER_S
from userspace_proxy.kernel.source_filter import admit_all, admit_only
from userspace_proxy.kernel.tcp_state import silence, tcp_info, unacknowledged_bytes

from .waiting import until

TUNING = Tuning(tcp_idle_s=100, tcp_half_closed_s=10)
ALICE, A_LINK = "10.1.0.1", 7


@pytest.fixture
async def rig(build):
    return build(TUNING)


async def joined(rig):
    """Return the client's socket, the endpoint's socket, and the connection between them."""
    pod = rig.endpoint()
    before = set(rig.connections.open)
    client, server = await rig.pair(rig.service(pod.address), pod)
    (connection,) = rig.connections.open.keys() - before
    await until(lambda: connection.up, "the dial is answered")
    return client, server, connection


def limit_resends(sock):
    """Limit the retransmission timeout to 2 s; return the value in ms, None if unsupported."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, ageing.TCP_RTO_MAX_MS, 2000)
    except OSError:
        return None
    return sock.getsockopt(socket.IPPROTO_TCP, ageing.TCP_RTO_MAX_MS)


def is_kept_alive(connection):
    return [
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for sock in (connection.client, connection.up.sink)
    ]


async def test_the_first_check_enables_keep_alive_on_both_sides(rig):
    _, _, connection = await joined(rig)
    assert is_kept_alive(connection) == [0, 0]
    rig.connections.ageing.look_at(connection, now=0)
    assert is_kept_alive(connection) == [1, 1]
    idle, interval = (
        connection.client.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
    )
    # This allows two probes before conntrack removes a half-closed connection.
    assert idle + interval < 60


async def test_the_first_check_sets_no_tcp_user_timeout(rig):
    """It would end connections to stalled readers, even if these answer window probes."""
    _, _, connection = await joined(rig)
    rig.connections.ageing.look_at(connection, now=0)
    for sock in (connection.client, connection.up.sink):
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_keep_alive_of_a_local_container_times_out_between_12_and_20_s(rig):
    """This applies if the endpoint sees the client's address; otherwise it takes two minutes."""
    _, _, connection = await joined(rig)
    connection.shows_local_client = True
    rig.connections.ageing.look_at(connection, now=0)
    idle, interval, count = (
        connection.client.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert interval * count > 12
    assert max(idle, ageing.LOOK_S) + interval * count < 20


def has_options_of_a_container(connection):
    return connection.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 14


@pytest.mark.parametrize("looks", [0, 1], ids=["before-the-first-look", "after-the-first-look"])
async def test_a_container_whose_route_is_added_later_counts_as_local(rig, looks):
    _, _, connection = await joined(rig)
    connection.is_preserved = True
    connection.address = ALICE, 1
    rig.engine.client_dialer.open_connections.add(ALICE, connection.endpoint)
    began, look_at = connection.started, rig.connections.ageing.look_at
    for _ in range(looks):
        look_at(connection, now=began)
    assert not has_options_of_a_container(connection)
    rig.engine.client_dialer.locality.change((), {f"{ALICE}/32": A_LINK})
    look_at(connection, now=began + ageing.LOOK_S)
    assert has_options_of_a_container(connection)
    assert connection.shows_local_client


async def test_a_container_whose_address_the_endpoint_does_not_see_does_not_count_as_local(rig):
    _, _, connection = await joined(rig)
    connection.address = ALICE, 1
    rig.engine.client_dialer.locality.change((), {f"{ALICE}/32": A_LINK})
    rig.connections.ageing.look_at(connection, now=connection.started)
    assert not connection.shows_local_client


async def test_retransmissions_to_a_local_container_are_at_most_2_s_apart_if_supported(rig):
    """This needs Linux 6.15; older kernels use the other options."""
    _, _, connection = await joined(rig)
    connection.shows_local_client = True
    with socket.socket() as fresh:
        limit = limit_resends(fresh)
    rig.connections.ageing.look_at(connection, now=0)
    if limit is not None:
        option = connection.client.getsockopt(socket.IPPROTO_TCP, ageing.TCP_RTO_MAX_MS)
        assert option == limit == 2000
    assert connection.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 14


async def test_an_endpoint_that_keeps_sending_to_a_vanished_client_container_is_reset(rig):
    client, server, connection = await joined(rig)
    connection.shows_local_client = True
    look_at = rig.connections.ageing.look_at
    look_at(connection, now=0)
    admit_only(client.sock, ())
    for now in (5, 10, 15, 20):
        assert not connection.is_closed
        await server.send(b"!")
        await until(lambda n=now: connection.down.bytes_moved == n // 5, "the byte")
        await until(lambda: unanswered(connection.client), "a resend")
        look_at(connection, now=now)
    assert connection.is_closed
    assert await server.was_reset()


@pytest.mark.parametrize("then", ["endpoint-returns", "client-leaves", "closed"])
async def test_a_connection_counts_as_stalled_while_its_endpoint_acknowledges_nothing(rig, then):
    client, server, connection = await joined(rig)
    counters = connection.group.counters_of(connection.endpoint)
    look_at, up = rig.connections.ageing.look_at, connection.up
    look_at(connection, now=0)
    admit_only(server.sock, ())
    before = up.bytes_moved
    await client.send(b"question")
    await until(lambda: up.bytes_moved > before)
    look_at(connection, now=5)
    await until(lambda: tcp_info(up.sink).sent_again >= 2, "resends")
    for now in (10, 15):
        look_at(connection, now=now)
        assert counters.stalled == 1
        await client.send(b"another question")
    if then == "endpoint-returns":
        admit_all(server.sock)
        await until(lambda: not unacknowledged_bytes(up.sink), "an acknowledgement")
        look_at(connection, now=20)
    elif then == "client-leaves":
        client.close()
        await until(lambda: up.is_ended)
        look_at(connection, now=20)
    else:
        connection.close()
    assert counters.stalled == 0


@pytest.mark.parametrize(
    ("waits", "sends_more", "owed"), [(True, False, 1), (True, True, 0), (False, False, 0)]
)
async def test_only_silence_after_the_fin_of_a_client_that_waited_counts_as_an_unanswered_request(
    rig, monkeypatch, waits, sends_more, owed
):
    monkeypatch.setitem(OWED_AFTER_S, True, 0.1 if waits else 60.0)
    client, server, connection = await joined(rig)
    counters, up = connection.group.counters_of(connection.endpoint), connection.up
    await server.send(b"part")
    assert await client.read() == b"part"
    rig.connections.ageing.look_at(connection, now=0)
    await until(lambda: silence(up.sink)[0] >= 0.15, "the client waits")
    client.finish()
    assert await server.read() == b""
    rig.connections.ageing.look_at(connection, now=2)
    assert counters.unanswered_requests == 0
    if sends_more:
        await server.send(b"rest")
        assert await client.read() == b"rest"
    for now in (4, 6, 8):
        rig.connections.ageing.look_at(connection, now=now)
    assert (counters.unanswered_requests, counters.left_open) == (owed, owed)


async def test_an_acknowledgement_restarts_the_timeout_of_an_unresponsive_client(rig):
    client, server, connection = await joined(rig)
    connection.shows_local_client = True
    look_at = rig.connections.ageing.look_at
    look_at(connection, now=0)
    admit_only(client.sock, ())
    await server.send(b"!")
    await until(lambda: unanswered(connection.client), "a resend")
    look_at(connection, now=5)
    admit_all(client.sock)
    await until(lambda: not unanswered(connection.client), "an answer")
    look_at(connection, now=18)
    admit_only(client.sock, ())
    await server.send(b"!")
    await until(lambda: unanswered(connection.client), "a resend")
    look_at(connection, now=20)
    assert not connection.is_closed


@pytest.mark.parametrize(("is_half_closed", "lasts_s", "counted"), [(False, 100, 1), (True, 10, 0)])
async def test_an_idle_connection_is_reset_after_its_timeout(rig, is_half_closed, lasts_s, counted):
    client, server, connection = await joined(rig)
    if is_half_closed:
        client.finish()
        assert await server.read() == b""
    look_at = rig.connections.ageing.look_at
    for now in (0, lasts_s - 0.1):
        look_at(connection, now=now)
        assert not connection.is_closed
    look_at(connection, now=lasts_s)
    assert connection.is_closed
    assert connection.group.counters.ended_idle == counted
    assert await client.was_reset()
    assert is_half_closed or await server.was_reset()


async def test_each_byte_restarts_the_idle_timeout(rig):
    client, server, connection = await joined(rig)
    look_at = rig.connections.ageing.look_at
    look_at(connection, now=0)
    await client.send(b"!")
    assert await server.read() == b"!"
    look_at(connection, now=99)
    look_at(connection, now=198)
    assert not connection.is_closed
    look_at(connection, now=199)
    assert connection.is_closed


async def test_a_stalled_readers_pipe_is_returned_without_losing_bytes(rig):
    client, server, connection = await joined(rig)
    sent = 0

    def is_stalled():
        nonlocal sent
        more = client.fill()
        sent += more
        return not more and connection.up.waiting_bytes

    await until(is_stalled, "the sender is stopped")
    waiting = connection.up.waiting_bytes
    pipes = rig.engine.pipes
    assert (pipes.open_pipes, len(pipes._free)) == (1, 0)
    for now in (0, 5, 10):
        rig.connections.ageing.look_at(connection, now=now)
    assert connection.up.waiting_bytes == waiting
    assert len(pipes._free) == pipes.open_pipes
    client.finish()
    assert len(await server.read_all()) == sent


async def test_the_idle_timeout_does_not_apply_to_dials(rig):
    service = rig.service(rig.silent())
    dialling = await rig.client(service)
    await until(lambda: rig.connections.open, "the dial")
    (connection,) = rig.connections.open
    rig.connections.ageing.look_at(connection, now=0)
    rig.connections.ageing.look_at(connection, now=1e9)
    assert not connection.is_closed
    dialling.close()


async def test_connection_checks_reach_all_connections_and_stop_with_the_last_one(rig, monkeypatch):
    monkeypatch.setattr(ageing, "LOOK_S", 0.01)
    monkeypatch.setattr(ageing, "_SLICE", 2)
    ends = [await joined(rig) for _ in range(5)]
    await until(lambda: all(is_kept_alive(c) == [1, 1] for *_, c in ends), "all checks")
    for client, _, _ in ends:
        client.reset()
    await until(lambda: not rig.connections.open, "the connections' end")
    await until(lambda: rig.connections.ageing._timer is None, "the end of the checks")
