"""How the connections of a Service port are counted, and classified by their answers."""

import logging
import socket

import pytest

from userspace_proxy.dataplane import Tuning, endpoint_group, tcp_accounts
from userspace_proxy.dataplane.connection_log import LOGGER, ConnectionLog
from userspace_proxy.facts.connection_outcome import AT_END_S, OWED_AFTER_S
from userspace_proxy.kernel.tcp_state import (
    LOSS_S,
    is_connected,
    is_lost_to,
    silence,
    since_sent_s,
)
from userspace_proxy.model import Failure
from userspace_proxy.model.connection_ends import EndReason

from ..kernel.test_tcp_state import LARGE, drop
from .rig import connection_lines
from .waiters import limited, waiting
from .waiting import turns, until


async def test_a_connection_is_counted_at_start_answer_and_end(rig):
    pod, web = rig.served()
    client, server = await rig.joined(web, pod)
    counters = web.group.counters_of(pod.address)
    assert (counters.connections, counters.active) == (1, 1)
    assert (web.group.connect_times.count, web.group.first_byte_times.count) == (1, 0)
    await client.send(b"question")
    assert await server.read() == b"question"
    await server.send(b"answer")
    assert await client.read() == b"answer"
    assert web.group.first_byte_times.count == 1
    client.reset()
    await until(lambda: not rig.connections.open)
    assert (counters.connections, counters.active) == (1, 0)
    assert [(call.number, call.failed) for call in rig.engine.calls.take()[0]] == [(1, 0)]


async def test_a_client_without_an_endpoint_counts_as_failed(rig):
    web = rig.service(rig.refusing())
    assert await rig.resets_a_client(web)
    assert [(call.number, call.failed) for call in rig.engine.calls.take()[0]] == [(1, 1)]


async def test_a_connection_log_enabled_during_a_connection_logs_its_end(rig, caplog):
    pod, web = rig.served()
    caplog.set_level("INFO")
    client, _ = await rig.joined(web, pod)
    address = client.address
    rig.engine.connection_log = ConnectionLog(1.0)
    client.reset()
    await until(lambda: not rig.connections.open)
    assert [line.client for line in connection_lines(caplog)] == [str(address)]


async def connect(rig):
    """Return a client, the endpoint's end of its connection, and the endpoint's counters."""
    pod, web = rig.served()
    return *await rig.pair(web, pod), web.group.counters_of(pod.address)


async def is_silent(rig, seconds=0.95):
    """Wait until the client has been silent for this time."""
    (connection,) = rig.connections.open
    await until(lambda: silence(connection.client)[0] >= seconds, "the client has waited")


async def ask_and_wait(rig, seconds=0.95):
    """Connect, ask a question and then be silent; return the result of :func:`connect`."""
    client, server, counters = await connect(rig)
    await client.send(b"question")
    assert await server.read() == b"question"
    await is_silent(rig, seconds)
    return client, server, counters


async def ended(rig):
    await until(lambda: not rig.connections.open)


def noted(rig, counters):
    """Return the unanswered streak's length and failure in the next report; zeros without one."""
    rig.settle()
    ends = counters.ends
    return (ends.part.failures, ends.part.failure) if ends.is_on else (0, 0)


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_a_client_leaving_after_a_second_without_an_answer_counts_as_unanswered(rig, leave):
    client, _server, counters = await ask_and_wait(rig)
    assert noted(rig, counters) == (0, 0), "the client may be a long poll, which still waits"
    getattr(client, leave)()
    await until(lambda: noted(rig, counters) == (1, Failure.UNANSWERED))
    assert noted(rig, counters) == (1, Failure.UNANSWERED), "the client counts once"


@pytest.mark.parametrize("leave", ["close", "reset", "vanish"])
@pytest.mark.parametrize("failure", [Failure.NOT_TO_CLIENT, Failure.NOT_TO_ENDPOINT])
async def test_packets_lost_before_a_client_leaves_are_attributed_to_the_unreached_side(
    rig, failure, leave
):
    client, server, counters = await connect(rig)
    await server.send(b"part of an answer")
    assert await client.read() == b"part of an answer"
    (connection,) = rig.connections.open
    is_of_client = failure is Failure.NOT_TO_CLIENT
    sender, receiver = (server, client) if is_of_client else (client, server)
    drop(receiver.sock, LARGE)
    await sender.send(bytes(3000))
    up, began = connection.up, connection.exchange.answered_at
    await until(lambda: is_lost_to(up.source if is_of_client else up.sink), "the retransmission")
    await until(lambda: connection.reactor.clock() - began >= LOSS_S)
    if leave == "vanish":
        client.reset()
        connection.reactor.now = connection.reactor.clock()
        connection.abort(0)
        assert not counters.cuts.part.failures
        return
    getattr(client, leave)()
    await until(lambda: counters.cuts.part.failures)
    assert counters.cuts.part.failure is failure


async def test_an_unanswered_client_whose_packets_were_lost_is_attributed_to_the_loss(rig):
    client, server, counters = await connect(rig)
    drop(server.sock, LARGE)
    await client.send(bytes(3000))
    (connection,) = rig.connections.open
    await until(lambda: connection.up and is_lost_to(connection.up.sink), "the retransmission")
    await is_silent(rig)
    client.close()
    await until(lambda: noted(rig, counters)[0])
    assert noted(rig, counters) == (1, Failure.NOT_TO_ENDPOINT)


async def test_an_unanswered_client_is_dated_by_its_fin_and_a_later_byte_counts_as_late(rig):
    client, server, counters = await ask_and_wait(rig)
    (connection,) = rig.connections.open
    client.close()
    await until(lambda: connection.up.is_ended)
    await until(lambda: silence(connection.client)[1] >= AT_END_S, "the time since the client left")
    assert noted(rig, counters) == (1, Failure.UNANSWERED)
    assert counters.ends.part.last_at <= connection.reactor.clock() - AT_END_S
    await server.send(b"answer")
    await until(lambda: counters.ends.part.late, "the late byte is noted")
    assert not counters.ends.part.late.is_at_end


async def test_a_request_read_together_with_a_reset_does_not_count_as_unanswered(rig, monkeypatch):
    client, _server, counters = await connect(rig)
    (connection,) = rig.connections.open
    await until(lambda: connection.up is not None)
    # The process was stopped for this time, so neither client nor endpoint is to blame.
    connection.exchange.asked_at -= 7.0
    monkeypatch.setattr(tcp_accounts, "silence", lambda _: (7.0, 0.0))
    client.send_some(b"question")
    client.reset()
    await ended(rig)
    assert counters.received_bytes == len(b"question"), "the question was passed on"
    assert noted(rig, counters) == (0, 0)


@pytest.mark.parametrize(("seconds", "answers_others"), [(0.95, False), (0.35, True)])
async def test_an_endpoint_closing_after_the_client_left_counts_as_unanswered(
    rig, seconds, answers_others
):
    client, server, counters = await ask_and_wait(rig, seconds)
    counters.ends.succeeded_at = 0.0 if answers_others else -1.0
    client.close()
    assert await server.read() == b""
    server.close()
    await ended(rig)
    assert noted(rig, counters) == (1, Failure.UNANSWERED)


async def test_a_late_greeting_is_timed_from_the_endpoints_answer_to_the_dial(rig):
    client, server, _ = await connect(rig)
    (connection,) = rig.connections.open
    await until(lambda: connection.up is not None)
    connection.exchange.answered_at -= 7.0
    client.finish()
    assert await server.read() == b""
    await server.send(b"220 ready")
    assert await client.read() == b"220 ready"
    assert connection.exchange.first_byte_s >= 7.0, "a FIN is no request"


async def test_a_late_response_arriving_with_the_fin_is_logged(build, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    rig = build(Tuning(connection_log=1.0))
    client, server, counters = await ask_and_wait(rig)
    client.close()
    await until(lambda: noted(rig, counters) == (1, Failure.UNANSWERED))
    await server.send(b"answer")
    server.close()
    await ended(rig)
    (line,) = connection_lines(caplog)
    assert (line.sent_bytes, line.code) == (6, "endpoint-answers-late")
    assert line.first_byte_s >= 0.9


@pytest.mark.parametrize(("seconds", "is_with_end"), [(0.95, False), (0.95, True), (0.12, True)])
async def test_a_response_after_the_clients_close_does_not_count_as_an_answer(
    rig, seconds, is_with_end
):
    client, server, counters = await ask_and_wait(rig, seconds)
    client.close()
    assert await server.read() == b""
    await server.send(b"answer")
    if is_with_end:
        server.close()
    await ended(rig)
    ends = counters.ends
    assert (ends.is_on, ends.part.failures, ends.part.failure) == (True, 1, Failure.UNANSWERED)
    assert ends.part.late is not None
    assert seconds - 0.05 <= ends.part.late.waited_s < 30
    assert ends.part.late.is_at_end


@pytest.mark.parametrize("is_with_end", [False, True])
async def test_a_half_closed_client_still_receives_a_late_response(rig, is_with_end):
    client, server, counters = await ask_and_wait(rig)
    client.finish()
    assert await server.read() == b""
    await server.send(b"answer")
    if is_with_end:
        server.close()
    assert await client.read() == b"answer"
    server.close()
    await ended(rig)
    assert await client.read() == b""
    assert noted(rig, counters) == (0, 0)


@pytest.mark.parametrize("is_with_end", [False, True])
async def test_a_client_that_half_closes_after_its_request_receives_its_response(rig, is_with_end):
    client, server, counters = await connect(rig)
    await client.send(b"question")
    client.finish()
    assert await server.read() == b"question"
    # In this time, no event of a socket advances the reactor's clock.
    await is_silent(rig)
    assert noted(rig, counters) == (1, Failure.UNANSWERED), "the client may have left"
    assert counters.client_aborts == 1
    await server.send(b"answer")
    if is_with_end:
        server.close()
    assert await client.read() == b"answer"
    server.close()
    await ended(rig)
    assert noted(rig, counters) == (0, 0)
    assert counters.client_aborts == 0


async def test_a_connection_closed_while_awaiting_a_response_is_no_longer_watched(timed, timers):
    client, server, _ = await ask_and_wait(timed)
    timers.advance(1.0)
    client.finish()
    assert await server.read() == b""
    # This exceeds the window of a client that doesn't read.
    await server.send(bytes(300_000))
    server.close()
    awaited = timed.connections.late_resets.waiting
    await until(lambda: awaited, "the answer is awaited")
    (connection,) = timed.connections.open
    connection.finish(EndReason.ENDPOINT_REMOVED, as_reset=True)
    assert not awaited


async def test_a_late_response_is_awaited_even_if_the_endpoint_has_not_read_everything(rig):
    client, server, counters = await connect(rig)
    # This exceeds the window of an endpoint that doesn't read, so the client's FIN stays behind it.
    await client.send(bytes(500_000))
    await is_silent(rig)
    (connection,) = rig.connections.open
    client.finish()
    await until(lambda: connection.up.is_ended, "the FIN is passed on")
    answer = bytes(300_000)
    await server.send(answer)
    server.finish()
    await until(
        lambda: connection.is_closed or (connection.up.is_ended and connection.down.is_ended),
        "both directions have ended",
    )
    assert not connection.is_closed, "the answer is awaited"
    assert is_connected(connection.up.sink), "the endpoint hasn't acknowledged the FIN"
    # A reset after its FIN has no effect any more.
    server.reset()
    await until(lambda: not is_connected(connection.up.sink))
    await turns(1)
    assert await client.read_exactly(len(answer)) == answer
    await ended(rig)
    assert await client.read() == b""
    assert noted(rig, counters) == (0, 0)
    assert (counters.client_aborts, counters.resets) == (0, 0)


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("has_waited", [False, True])
async def test_an_endpoint_is_not_blamed_for_a_client_that_waited_for_its_turn(
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
    await is_silent(rig)
    second.close()
    assert await server.read() == b""
    if is_late:
        await server.send(b"answer")
    server.close()
    await ended(rig)
    counters = web.group.counters_of(pod.address)
    blamed = (
        web.group.counters.aborts_after_wait,
        counters.client_aborts,
        counters.ends.is_on,
    )
    assert blamed == ((1, 0, False) if has_waited else (0, 1, True))


async def test_an_endpoint_that_resets_after_leaving_data_unread_counts_as_unanswered(rig):
    client, server, counters = await connect(rig)
    (connection,) = rig.connections.open
    await until(lambda: connection.up is not None)
    while not connection.up.is_stuck:
        client.send_some(bytes(1 << 20))
        await turns(1)
    connection.exchange.asked_at -= 3.0
    server.reset()
    await ended(rig)
    assert noted(rig, counters) == (1, Failure.UNANSWERED)


async def ask_again(rig):
    """Return a client that was answered and has asked again, its endpoint and the counters."""
    client, server, counters = await connect(rig)
    await server.send(b"hello")
    assert await client.read() == b"hello"
    await client.send(b"question")
    assert await server.read() == b"question"
    return client, server, counters


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


async def is_answered_at_the_end(client, server):
    # The event loop doesn't run in between, so the answer and the FIN are read together.
    server.sock.send(b"answer")
    server.close()
    assert await client.read() == b"answer"
    client.close()


@pytest.mark.parametrize(
    ("ends", "owed", "cut"),
    [
        (is_answered_at_the_end, 0, 0),
        (leaves, 1, 0),
        (leaves_with_a_last_word, 1, 0),
        (resets, 1, 0),
        (is_ended_by_the_endpoint, 1, 0),
        (is_reset_by_the_endpoint, 0, 1),
        (is_answered_first, 0, 0),
    ],
)
async def test_a_second_request_counts_as_unanswered_after_a_wait_unless_answered_or_cut(
    rig, monkeypatch, ends, owed, cut
):
    monkeypatch.setitem(OWED_AFTER_S, True, 0.1)
    client, server, counters = await ask_again(rig)
    (connection,) = rig.connections.open
    await until(lambda: since_sent_s(connection.up.sink) >= 0.15, "the client waits")
    await ends(client, server)
    await ended(rig)
    assert (
        counters.unanswered_requests,
        counters.endpoint_aborts,
        counters.unanswered + counters.client_aborts,
    ) == (owed, cut, 0)


async def test_an_unanswered_request_counts_when_its_client_leaves(rig, monkeypatch):
    monkeypatch.setitem(OWED_AFTER_S, True, 0.1)
    client, server, counters = await ask_again(rig)
    (connection,) = rig.connections.open
    await until(lambda: since_sent_s(connection.up.sink) >= 0.15, "the client waits")
    client.sock.shutdown(socket.SHUT_WR)
    assert await server.read() == b""
    assert (counters.unanswered_requests, counters.active) == (1, 1)
    server.close()
    await ended(rig)
    assert counters.unanswered_requests == 1


async def test_a_second_request_of_a_client_leaving_soon_does_not_count_as_unanswered(rig):
    client, server, counters = await ask_again(rig)
    await leaves(client, server)
    await ended(rig)
    assert counters.unanswered_requests == 0


@pytest.mark.parametrize(
    ("left_open_s", "is_closed", "owed"), [(0.1, False, 1), (60.0, False, 0), (0.1, True, 0)]
)
async def test_a_half_closed_clients_reset_counts_as_unanswered_if_the_endpoints_answer_stalled(
    rig, monkeypatch, left_open_s, is_closed, owed
):
    monkeypatch.setattr(tcp_accounts, "LEFT_OPEN_S", left_open_s)
    client, server, counters = await connect(rig)
    (connection,) = rig.connections.open
    await client.send(b"question")
    assert await server.read() == b"question"
    await server.send(b"part of an answer")
    assert await client.read() == b"part of an answer"
    client.sock.shutdown(socket.SHUT_WR)
    assert await server.read() == b""
    if is_closed:
        server.sock.shutdown(socket.SHUT_WR)
        assert await client.read() == b""
    else:
        await until(lambda: silence(connection.up.sink)[0] >= 0.15, "the endpoint is silent")
    client.reset()
    await ended(rig)
    assert (counters.unanswered_requests, counters.endpoint_aborts) == (owed, 0)


@pytest.mark.parametrize(
    ("answers", "question", "failed"),
    [
        ("none", b"question", 0),
        ("its", b"question", 1),
        ("of another", b"question", 2),
        ("of another", b"", 0),
    ],
)
async def test_closing_after_each_clients_fin_counts_as_unanswered_only_if_an_endpoint_answers(
    rig, monkeypatch, answers, question, failed
):
    monkeypatch.setattr("userspace_proxy.facts.counters._CLOSED_MAX", 2)
    pod, other = rig.endpoint(), rig.endpoint()
    web = rig.service(pod.address)
    counters = web.group.counters_of(pod.address)
    web.group.counters_of(other.address).ends.succeeded_at = 1.0 if answers == "of another" else -1
    for number in range(3):
        client, server = await rig.pair(web, pod)
        client.send_some(question)
        client.finish()
        assert await server.read() == question
        if answers == "its" and number == 0:
            await server.send(b"answer")
        server.close()
        await ended(rig)
        client.close()
    assert (counters.unanswered, counters.ends.is_on) == (failed, failed > 0)


async def test_a_reset_reported_by_splice_is_attributed_to_the_endpoint(rig):
    client, server, counters = await connect(rig)
    (connection,) = rig.connections.open
    await server.send(b"hello")
    assert await client.read() == b"hello"
    connection.down._is_bulk = True
    await is_reset_by_the_endpoint(client, server)
    await ended(rig)
    assert (counters.resets, counters.endpoint_aborts) == (1, 1)


async def test_a_reset_after_an_endpoint_closed_without_sending_is_attributed_to_the_client(
    build, caplog
):
    caplog.set_level(logging.INFO, LOGGER)
    rig = build(Tuning(connection_log=1.0))
    client, server, _counters = await connect(rig)
    (connection,) = rig.connections.open
    await until(lambda: connection.up is not None)
    server.finish()
    assert await client.read() == b""
    while not connection.up.is_stuck:
        client.send_some(bytes(1 << 20))
        await turns(1)
    client.reset()
    await until(lambda: connection.is_aborting)
    # A read of the end leaves this state if a send has consumed the error before.
    connection.up.is_ended = True
    connection.close()
    (line,) = connection_lines(caplog)
    assert (line.cause, line.ended_by) == ("reset", "client")
