"""Clients that leave without an answer, counted against an endpoint that never sends a byte."""

import logging
import socket
import struct

import pytest

from userspace_proxy.dataplane import Tuning, endpoint_group, giving_up
from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.facts.late_bytes import AT_END_S
from userspace_proxy.kernel.tcp_state import said_s, unheard_s
from userspace_proxy.model import Failure

from .rig import connection_lines
from .waiters import limited, waiting
from .waiting import turns, until


def waited_s(connection):
    """Return for how long the client has sent nothing, as the kernel has it."""
    info = connection.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 56)
    return struct.unpack_from("=I", info, 52)[0] / 1000


async def ask_and_wait(rig, pod, web, seconds=0.95):
    """Return a client, and the endpoint's end, a second after its question."""
    client, server = await rig.pair(web, pod)
    await client.send(b"question")
    assert await server.read() == b"question"
    (connection,) = rig.connections.open
    await until(lambda: waited_s(connection) >= seconds, "the client has waited")
    return client, server


def noted(rig, web, pod):
    """Return how many connections in a row ended without an answer, as the next report has it."""
    rig.plane.settle()
    ends = web.group.counters_of(pod.address).ends
    return (ends.failures, ends.failure) if ends.is_on else (0, 0)


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_client_that_leaves_after_a_second_without_an_answer_has_given_up(rig, leave):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, _server = await ask_and_wait(rig, pod, web)
    assert noted(rig, web, pod) == (0, 0), "it still waits, as long polls do"
    getattr(client, leave)()
    await until(lambda: noted(rig, web, pod) == (1, Failure.UNANSWERED))
    assert noted(rig, web, pod) == (1, Failure.UNANSWERED), "once"


async def test_the_time_of_a_client_that_has_given_up_is_that_of_its_end(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, _server = await ask_and_wait(rig, pod, web)
    (connection,) = rig.connections.open
    client.close()
    await until(lambda: connection.up.is_ended)
    await until(lambda: unheard_s(connection.client) >= 0.1, "the client has left a while ago")
    assert noted(rig, web, pod) == (1, Failure.UNANSWERED)
    assert web.group.counters_of(pod.address).ends.last_at <= connection.reactor.now - 0.1


async def test_an_endpoint_that_closes_when_the_client_has_left_has_not_answered_either(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    client.close()
    assert await server.read() == b""
    server.close()
    await until(lambda: not rig.connections.open)
    assert noted(rig, web, pod) == (1, Failure.UNANSWERED)


async def test_a_client_that_sends_and_leaves_at_once_wants_no_answer(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    await client.send(b"another line")
    client.close()
    assert await server.read() == b"another line"
    server.close()
    await until(lambda: not rig.connections.open)
    assert noted(rig, web, pod) == (0, 0)


async def test_a_client_that_sends_again_without_an_answer_expects_none(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, _server = await ask_and_wait(rig, pod, web)
    (connection,) = rig.connections.open
    # Its first line came a second before the last.
    connection._asked_at -= 1.0
    client.close()
    await until(lambda: connection.up.is_ended)
    assert noted(rig, web, pod) == (0, 0)


@pytest.mark.parametrize("has_answered", [True, False])
async def test_an_endpoint_that_answers_others_is_waited_for_after_a_shorter_time(
    rig, monkeypatch, has_answered
):
    monkeypatch.setattr(giving_up, "_WAITED_S", 60.0)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    if has_answered:
        other, server = await rig.pair(web, pod)
        await server.send(b"answer")
        assert await other.read() == b"answer"
        other.close()
        server.close()
        await until(lambda: not rig.connections.open)
    client, server = await ask_and_wait(rig, pod, web, 0.35)
    client.close()
    assert await server.read() == b""
    server.close()
    await until(lambda: not rig.connections.open)
    assert noted(rig, web, pod) == ((1, Failure.UNANSWERED) if has_answered else (0, 0))


@pytest.mark.parametrize("has_waited", [True, False])
async def test_a_byte_shows_that_a_client_that_left_sooner_had_waited_for_it(
    rig, monkeypatch, has_waited
):
    if not has_waited:
        monkeypatch.setattr(giving_up, "_AWAITED_S", 60.0)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web, 0.12)
    client.close()
    assert await server.read() == b""
    await server.send(b"answer")
    server.close()
    await until(lambda: not rig.connections.open)
    ends = web.group.counters_of(pod.address).ends
    assert (ends.is_on, ends.failure) == (
        (True, Failure.UNANSWERED) if has_waited else (False, Failure.OTHER)
    )


async def test_a_greeting_that_is_late_has_taken_the_time_since_the_endpoint_answered(rig):
    pod = rig.endpoint()
    client, server = await rig.pair(rig.service(pod.address), pod)
    (connection,) = rig.connections.open
    await until(lambda: connection.up is not None)
    connection._asked_at -= 7.0
    client.finish()
    assert await server.read() == b""
    await server.send(b"220 ready")
    assert await client.read() == b"220 ready"
    assert connection._first_byte_s >= 7.0, "the client's end asks for nothing"


async def test_an_answer_ends_it_also_a_late_one(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    client.finish()
    await until(lambda: noted(rig, web, pod) == (1, Failure.UNANSWERED))
    await server.send(b"answer")
    assert await client.read() == b"answer"
    assert noted(rig, web, pod) == (0, 0)


async def test_a_late_answer_that_comes_with_the_end_is_in_its_line(build, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    rig = build(Tuning(connection_log=1.0))
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    client.close()
    await until(lambda: noted(rig, web, pod) == (1, Failure.UNANSWERED))
    await server.send(b"answer")
    server.close()
    await until(lambda: not rig.connections.open)
    (line,) = connection_lines(caplog)
    assert (line.sent_bytes, line.code) == (6, "endpoint-answers-late")
    assert line.first_byte_s >= 0.9


@pytest.mark.parametrize("is_with_end", [False, True])
async def test_an_answer_that_comes_after_its_client_has_closed_is_none(rig, is_with_end):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    client.close()
    assert await server.read() == b""
    await server.send(b"answer")
    if is_with_end:
        server.close()
    await until(lambda: not rig.connections.open)
    ends = web.group.counters_of(pod.address).ends
    assert (ends.is_on, ends.failures, ends.failure) == (True, 1, Failure.UNANSWERED)
    assert ends.late is not None
    assert 0.9 <= ends.late.waited_s < 30
    assert ends.late.is_at_end


async def test_an_answer_that_its_clients_end_does_not_bring_is_slow(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    (connection,) = rig.connections.open
    client.close()
    assert await server.read() == b""
    await until(lambda: unheard_s(connection.client) >= AT_END_S, "the client has left a while ago")
    await server.send(b"answer")
    ends = web.group.counters_of(pod.address).ends
    await until(lambda: ends.late, "the late byte is noted")
    assert not ends.late.is_at_end


@pytest.mark.parametrize("is_with_end", [False, True])
async def test_a_client_that_reads_after_its_end_has_its_answer_however_late(rig, is_with_end):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    client.finish()
    assert await server.read() == b""
    await server.send(b"answer")
    if is_with_end:
        server.close()
    assert await client.read() == b"answer"
    server.close()
    await until(lambda: not rig.connections.open)
    assert await client.read() == b""
    assert noted(rig, web, pod) == (0, 0)


@pytest.mark.parametrize("is_with_end", [False, True])
async def test_a_client_that_ends_its_side_at_once_and_waits_has_its_answer(rig, is_with_end):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await rig.pair(web, pod)
    await client.send(b"question")
    client.finish()
    assert await server.read() == b"question"
    (connection,) = rig.connections.open
    await until(lambda: waited_s(connection) >= 0.95, "the client has been silent for a while")
    # The reactor's clock stands still between events.
    connection._asked_at -= 1.0
    assert noted(rig, web, pod) == (1, Failure.UNANSWERED), "it may have left"
    counters = web.group.counters_of(pod.address)
    assert counters.left == 1
    await server.send(b"answer")
    if is_with_end:
        server.close()
    assert await client.read() == b"answer"
    server.close()
    await until(lambda: not rig.connections.open)
    assert noted(rig, web, pod) == (0, 0)
    assert counters.left == 0


async def test_a_client_that_has_got_a_byte_has_its_answer(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    await server.send(b"answer")
    assert await client.read() == b"answer"
    client.close()
    await turns(3)
    assert noted(rig, web, pod) == (0, 0)


async def test_a_connection_that_ends_while_its_answer_is_awaited_is_looked_at_no_more(
    build, timers
):
    rig = build(None, timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_and_wait(rig, pod, web)
    timers.advance(1.0)
    client.finish()
    assert await server.read() == b""
    # More than the window of a client that doesn't read.
    await server.send(bytes(300_000))
    server.close()
    awaited = rig.connections.late_resets._waiting
    await until(lambda: awaited, "the answer is awaited")
    (connection,) = rig.connections.open
    connection.finish("endpoint removed", as_reset=True)
    assert not awaited


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("has_waited", [False, True])
async def test_a_client_that_leaves_after_a_wait_for_its_turn_is_no_fault_of_the_endpoint(
    rig, monkeypatch, has_waited, is_late
):
    monkeypatch.setattr(endpoint_group, "_WAITED_S", 0.0 if has_waited else 60.0)
    pod = rig.endpoint()
    web = rig.service(pod.address, **limited(1))
    first, server = await rig.pair(web, pod)
    (second,) = await waiting(rig, web, 1)
    await second.send(b"question")
    await server.send(b"answer")
    assert await first.read() == b"answer"
    first.close()
    server.close()
    server = await pod.accept()
    assert await server.read() == b"question"
    (connection,) = rig.connections.open
    await until(lambda: waited_s(connection) >= 0.95, "the client has waited")
    second.close()
    assert await server.read() == b""
    if is_late:
        await server.send(b"answer")
    server.close()
    await until(lambda: not rig.connections.open)
    counters = web.group.counters_of(pod.address)
    blamed = web.group.counters.after_wait.left, counters.left, counters.ends.is_on
    assert blamed == ((1, 0, False) if has_waited else (0, 1, True))


@pytest.mark.parametrize(("asked_s", "failure"), [(3.0, Failure.UNANSWERED), (0.0, Failure.RESET)])
async def test_an_endpoint_that_resets_what_it_has_not_read_for_long_has_hung(
    rig, asked_s, failure
):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await rig.pair(web, pod)
    (connection,) = rig.connections.open
    await until(lambda: connection.up is not None)
    while not connection.up.is_stuck:
        client.send_some(bytes(1 << 20))
        await turns(1)
    connection._asked_at -= asked_s
    server.reset()
    await until(lambda: not rig.connections.open)
    assert noted(rig, web, pod) == (1, failure)


# -- clients that were answered before ---------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """A wait is short."""
    monkeypatch.setattr(giving_up, "_WAITED_S", 0.1)


async def ask_again(rig, pod, web):
    """Return a client that was answered and has asked again, and the endpoint's end."""
    client, server = await rig.pair(web, pod)
    await server.send(b"hello")
    assert await client.read() == b"hello"
    await client.send(b"question")
    assert await server.read() == b"question"
    return client, server


async def leaves(client, server):
    client.close()
    assert await server.read() == b""
    server.close()


async def leaves_with_a_last_word(client, server):
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    await client.send(b"bye")
    client.close()
    assert await server.read() == b"bye"
    server.close()


async def resets(client, server):
    client.reset()
    server.close()


async def is_ended_by_the_endpoint(client, server):
    server.close()
    assert await client.read() == b""
    client.close()


async def is_reset_by_the_endpoint(client, server):
    server.reset()
    with pytest.raises(ConnectionResetError):
        await client.read()


async def is_answered_first(client, server):
    await server.send(b"answer")
    assert await client.read() == b"answer"
    await leaves(client, server)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("ends", "owed", "cut"),
    [
        (leaves, 1, 0),
        (leaves_with_a_last_word, 1, 0),
        (resets, 1, 0),
        (is_ended_by_the_endpoint, 1, 0),
        (is_reset_by_the_endpoint, 0, 1),
        (is_answered_first, 0, 0),
    ],
)
async def test_an_endpoint_owes_a_further_answer_to_who_has_waited_for_it(rig, ends, owed, cut):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    client, server = await ask_again(rig, pod, web)
    (connection,) = rig.connections.open
    await until(lambda: said_s(connection.up.sink) >= 0.15, "the client waits")
    await ends(client, server)
    await until(lambda: not rig.connections.open)
    counters = web.group.counters_of(pod.address)
    assert (counters.owed, counters.cut, counters.unanswered + counters.left) == (owed, cut, 0)


async def test_a_client_that_asks_again_and_leaves_at_once_is_owed_nothing(rig):
    pod = rig.endpoint()
    web = rig.service(pod.address)
    await leaves(*await ask_again(rig, pod, web))
    await until(lambda: not rig.connections.open)
    assert web.group.counters_of(pod.address).owed == 0
