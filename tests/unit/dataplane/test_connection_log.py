"""The connection log, with real connections and flows."""

import logging

import pytest

from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.connection_log import LOGGER, ConnectionLog, Watch
from userspace_proxy.facts.connection import ConnectionEvent, ConnectionFacts
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.port_ranges import DialledRange
from userspace_proxy.model.serving import Serving

from .peers import exchange
from .rig import Clock, connection_lines
from .waiters import HOLD
from .waiting import until

ALL = Tuning(connection_log=1.0)
WHOSE = ("shop", "shop/web", "shop/web:http"), "10.0.0.7"


@pytest.fixture
def lines(caplog):
    """Return a function that lists the connection log so far."""
    caplog.set_level(logging.INFO, LOGGER)
    return lambda: connection_lines(caplog)


@pytest.fixture
async def rig(build):
    return build(ALL)


def ends(lines):
    return [(line.cause, line.ended_by) for line in lines]


class Records(Watch):
    """Keeps all records of connections."""

    def __init__(self):
        self.all = []

    def has_room(self, prefixes, client_ip, *, is_plain=False):
        return True

    def put(self, one, frontend):
        one.frontend = str(frontend())
        self.all.append(one)


@pytest.mark.parametrize("in_range", [True, False], ids=["in-a-range", "single-port"])
async def test_a_record_shows_whether_the_dialled_port_is_in_a_range(rig, in_range):
    watch = Records()
    rig.engine.connection_log = ConnectionLog(0, watch=watch)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    ip, port = web.address
    ranges = (DialledRange(ip, port, port + 9, port),) if in_range else ()
    web.group.update(Serving((pod.address,), ranges=ranges))
    client, server = await rig.pair(web, pod)
    server.close()
    client.close()
    await until(lambda: watch.all)
    assert [(one.in_range, one.frontend) for one in watch.all] == [(in_range, str(web.address))]


async def test_dials_within_a_range_are_logged_with_the_dialled_port(rig, lines):
    dead, pod = rig.refusing(), rig.endpoint()
    listed = [SocketAddress(one.ip, one.port - 5) for one in (dead, pod.address)]
    web = rig.service(*listed)
    ip, port = web.address
    ranges = (DialledRange(ip, port - 9, port + 9, port - 5),)
    web.group.update(Serving(tuple(listed), ranges=ranges))
    client, server = await rig.pair(web, pod)
    server.close()
    client.close()
    await until(lines)
    (line,) = lines()
    assert (line.failed, line.endpoint) == (f"{dead} endpoint-refuses", str(pod.address))


async def test_a_connection_is_logged_in_one_line(build, lines):
    clock = Clock()
    rig = build(Tuning(connect_timeout_s=60, connection_log=1.0), clock)
    pod = rig.endpoint()
    dead = rig.refusing()
    web = rig.service(dead, pod.address)
    client, server = await rig.pair(web, pod)
    await client.send(b"question")
    assert await server.read() == b"question"
    clock.now += 2.5
    await server.send(b"answer!")
    server.close()
    assert await client.read_all() == b"answer!"
    address = client.address
    client.close()
    await until(lines)
    (line,) = lines()
    assert line.getMessage() == "connection ended: complete"
    assert (line.service, line.client) == ("shop/web:http", str(address))
    assert (line.frontend, line.endpoint) == (str(web.address), str(pod.address))
    assert (line.dials, line.waited_s, line.duration_s) == (2, 0.0, 2.5)
    assert line.failed == f"{dead} endpoint-refuses"
    assert (line.received_bytes, line.sent_bytes, line.source) == (8, 7, "node")
    assert line.first_byte_s == 2.5


@pytest.mark.parametrize("first", ["client", "endpoint"])
async def test_a_clean_end_is_attributed_to_the_side_that_closed_first(rig, lines, first):
    ends_first, ends_last = await rig.both_ends(first)
    ends_first.finish()
    assert await ends_last.read_all() == b""
    ends_last.close()
    await until(lines)
    assert ends(lines()) == [("complete", first)]


@pytest.mark.parametrize("first", ["client", "endpoint"])
async def test_a_reset_is_attributed_to_its_sender(rig, lines, first):
    resets, other = await rig.both_ends(first)
    resets.reset()
    assert await other.was_reset()
    await until(lines)
    assert ends(lines()) == [("reset", first)]


async def test_a_reset_delayed_by_unread_bytes_is_attributed_to_its_sender(rig, lines):
    pod, web = rig.served()
    client = await rig.client(web, receive_bytes=4096)
    server = await pod.accept()
    await until(lambda: all(c.up for c in rig.connections.open), "the dial is answered")
    await server.send(bytes(64 * 1024))
    server.reset()
    await until(lambda: all(c.is_aborting for c in rig.connections.open))
    assert lines() == []
    assert await client.was_reset()
    await until(lines)
    assert ends(lines()) == [("reset", "endpoint")]


@pytest.mark.parametrize("ending", ["reset", "finish"])
async def test_an_unanswered_connection_is_logged_with_the_code_of_its_cause(rig, lines, ending):
    client, server = await rig.both_ends()
    await client.send(b"question")
    await server.read()
    getattr(server, ending)()
    assert await client.was_reset() is (ending == "reset")
    client.close()
    await until(lines)
    (line,) = lines()
    assert (line.code, line.endpoint != "") == (CauseCode.ENDPOINT_RESETS, True)


async def test_a_client_without_a_reachable_endpoint_is_logged_as_refused_by_the_proxy(rig, lines):
    assert await rig.resets_a_client(rig.service(rig.refusing()))
    (line,) = lines()
    assert (line.cause, line.ended_by, line.endpoint, line.dials) == ("unanswered", "proxy", "", 1)
    assert line.code == CauseCode.ENDPOINT_REFUSES


async def test_a_connection_open_at_shutdown_is_logged_as_shut_down(rig, lines):
    await rig.both_ends()
    rig.connections.reset_all()
    assert ends(lines()) == [("shutdown", "proxy")]


async def test_a_flow_is_logged_in_one_line(build, timers, lines):
    rig = build(ALL, timers.clock, timers)
    pod, dns = rig.udp_peer(), rig.udp_service(**HOLD)
    client = rig.udp_client(dns)
    client.send(b"question")
    await until(lambda: rig.flows)
    timers.advance(2)
    rig.update(dns, pod.address, **HOLD)
    _, proxy = await pod.receive_from()
    pod.send_to(b"answer!", proxy)
    assert await client.receive() == b"answer!"
    timers.advance(31)
    (line,) = lines()
    assert line.getMessage() == "flow ended: idle"
    assert (line.service, line.client) == ("shop/web:http", str(client.address))
    assert (line.frontend, line.endpoint) == (str(dns.address), str(pod.address))
    assert (line.received_bytes, line.sent_bytes, line.ended_by) == (8, 7, "proxy")
    assert line.failed == ""
    assert 32 <= line.duration_s <= 33
    assert line.waited_s == 2


async def test_a_flow_refused_after_a_reply_is_logged_without_a_failed_endpoint(rig, lines):
    pod, _, client = rig.udp_served()
    await exchange(client, pod)
    pod.close()
    client.send(b"question")
    await until(lines)
    (line,) = lines()
    assert (line.cause, line.ended_by, line.dials) == ("refused", "endpoint", 1)
    assert (line.code, line.failed) == ("", "")


async def test_a_flow_to_a_wildcard_socket_is_logged_without_a_frontend(rig, lines):
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address, at="0.0.0.0")
    client = rig.udp_peer()
    client.sock.connect(("127.0.0.1", dns.address.port))
    await exchange(client, pod)
    dns.close()
    assert [line.frontend for line in lines()] == [""]


async def test_flows_are_logged_with_the_causes_of_their_ends(build, lines):
    rig = build(Tuning(max_flows=1, connection_log=1.0))
    pod = rig.udp_peer()
    dns = rig.udp_service(pod.address)
    for _ in range(2):
        await exchange(rig.udp_client(dns), pod)
    dead = rig.refusing_udp()
    rig.update(dns, dead)
    client = rig.udp_client(dns)
    client.send(b"question")
    await until(lambda: len(lines()) == 3)
    rig.update(dns, pod.address)
    await exchange(client, pod)
    dns.close()
    assert ends(lines()) == [
        ("evicted", "proxy"),
        ("endpoint removed", "proxy"),
        ("unanswered", "proxy"),
        ("listener closed", "proxy"),
    ]
    assert [line.failed for line in lines()] == ["", "", f"{dead} endpoint-refuses", ""]


def test_an_event_before_the_end_of_a_connection_is_not_logged(lines):
    log = ConnectionLog(1, watch=Records())
    assert log.takes_next(*WHOSE)
    assert log.is_watched(*WHOSE)
    log.write(ConnectionFacts(event=ConnectionEvent.HELD), lambda: None)
    assert lines() == []


def test_the_configured_share_of_connections_is_logged(lines):
    numbers = iter([0.0, 0.0099, 0.01, 0.5, 0.9999])
    log = ConnectionLog(0.01, lambda: next(numbers))
    assert [log.takes_next(*WHOSE) for _ in range(5)] == [True, True, False, False, False]


def test_no_connections_are_logged_while_the_log_level_is_disabled(caplog):
    caplog.set_level(logging.WARNING, LOGGER)
    assert not ConnectionLog(1.0).takes_next(*WHOSE)
