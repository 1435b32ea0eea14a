import errno
import socket

import pytest

from tests.descriptors import descriptors_left
from userspace_proxy.dataplane import Tuning, client_address
from userspace_proxy.dataplane.tuning import BATCH, DIALS
from userspace_proxy.model import Failure, Handling, Hold, SocketAddress
from userspace_proxy.model.failures import dial_failure

from ..kept import kept_by
from .peers import UdpPeer, exchange
from .rig import UNREACHABLE, out_of_watches
from .waiters import HOLD, count_waiting
from .waiting import turns, until


async def test_a_flow_with_only_endpoint_traffic_stays_open(timed, timers):
    """For example, a client subscribes to a stream of events with a single datagram."""
    pod, _, client = timed.udp_served()
    client.send(b"question")
    _, at = await pod.receive_from()
    for _ in range(4):
        timers.advance(20)
        pod.send_to(b"event", at)
        assert await client.receive() == b"event"
    assert len(timed.flows) == 1


async def test_a_flow_resends_two_simultaneous_requests_to_the_next_endpoint(rig):
    """glibc sends A and AAAA together, and waits 5 s if one of them is lost."""
    pod, dead = rig.udp_peer(), rig.refusing_udp()
    dns = rig.udp_service(dead, pod.address)
    client = rig.udp_client(dns)
    client.send(b"A")
    client.send(b"AAAA")
    assert {await pod.receive(), await pod.receive()} == {b"A", b"AAAA"}
    assert dns.group.balancers.current.ejected(rig.engine.reactor.now).keys() == {dead}
    assert [dns.group.counters_of(one).active for one in (dead, pod.address)] == [0, 1]


async def test_a_flow_moves_on_from_an_unreachable_endpoint(rig):
    pod = rig.udp_peer()
    dns = rig.udp_service(UNREACHABLE, pod.address)
    client = rig.udp_client(dns)
    for _ in range(2):
        await exchange(client, pod)
    assert dns.group.counters_of(UNREACHABLE).failures == dns.group.counters.saved == 1


async def test_a_datagram_is_resent_to_few_endpoints_and_the_next_datagram_to_other_endpoints(rig):
    pod = rig.udp_peer()
    dead = [UNREACHABLE._replace(port=port) for port in range(1, DIALS + 1)]
    dns = rig.udp_service(*dead, pod.address)
    client = rig.udp_client(dns)
    client.send(b"lost")
    await until(lambda: dns.group.counters.refused)
    assert dns.group.totals().failures == DIALS
    await exchange(client, pod)


async def test_a_flow_that_waits_again_keeps_its_first_deadline(timed, timers):
    dns = timed.udp_service(timed.refusing_udp(), handling=Handling(hold=Hold(3)))
    timed.udp_client(dns).send(b"question")
    waits = dns.group.counters.waits
    for count in range(1, 4):
        await until(lambda count=count: dns.group.totals().failures >= count, "the flow is refused")
        await until(lambda: count_waiting(dns), "the flow waits again")
        timers.advance(1)
    assert waits.total == 1
    await until(lambda: waits.timeouts)


async def test_a_flow_refused_by_all_endpoints_ends(rig):
    dead = [rig.refusing_udp() for _ in range(3)]
    dns = rig.udp_service(*dead)
    rig.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused)
    assert [dns.group.counters_of(one).failures for one in dead] == [1, 1, 1]
    assert len(rig.flows) == 0


@pytest.mark.pure
async def test_a_self_connected_socket_counts_as_a_failed_dial(rig, monkeypatch):
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("127.0.0.1", 0))
    own.connect(own.getsockname())
    itself = SocketAddress(*own.getsockname())
    dns = rig.udp_service(itself)
    calls = rig.engine.reactor.calls
    monkeypatch.setattr(rig.engine.client_dialer, "dial_for", lambda *_, **__: calls.adopt(own))
    rig.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused or dns.group.totals().active)
    assert dns.group.counters_of(itself).failures == 1


async def test_a_flow_with_a_dead_endpoint_moves_to_another_endpoint(rig):
    pods = [rig.udp_peer() for _ in range(2)]
    dns = rig.udp_service(*(pod.address for pod in pods))
    client = rig.udp_client(dns)
    await exchange(client, pods[0])
    pods[0].close()
    client.send(b"lost with the endpoint")
    await until(lambda: not rig.flows)
    await exchange(client, pods[1])


async def test_an_oversized_first_datagram_is_not_resent(rig):
    pod = rig.udp_peer()
    dns = rig.udp_service(rig.refusing_udp(), pod.address)
    client = rig.udp_client(dns)
    client.send(bytes(3000))
    await until(lambda: dns.group.totals().failures)
    await exchange(client, pod)


async def test_the_first_four_datagrams_are_resent_to_another_endpoint(rig):
    pod = rig.udp_peer()
    silent = rig.udp_peer()
    dns = rig.udp_service(silent.address, pod.address)
    client = rig.udp_client(dns)
    for number in range(8):
        client.send(b"%d" % number)
        assert await silent.receive() == b"%d" % number
    silent.close()
    client.send(b"refused")
    assert [await pod.receive() for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    await exchange(client, pod)


async def test_a_late_refusal_does_not_resend_datagrams(build, timers):
    """A syslog client's datagram had arrived an hour before its endpoint died."""
    rig = build(Tuning(udp_idle_s=9999), timers.clock, timers)
    old, new = rig.udp_peer(), rig.udp_peer()
    client = rig.udp_client(rig.udp_service(old.address, new.address))
    client.send(b"long ago")
    assert await old.receive() == b"long ago"
    timers.advance(3600)
    old.close()
    client.send(b"refused")
    await until(lambda: not rig.flows)
    client.send(b"today")
    assert await new.receive() == b"today"


async def test_a_receive_only_endpoint_is_readmitted_when_it_stops_refusing(timed, timers):
    pod = timed.udp_peer()
    syslog = timed.udp_service(pod.address)
    syslog.group.failed(pod.address, dial_failure(errno.ECONNREFUSED, pod.address.ip), timers.now)
    client = timed.udp_client(syslog)
    for _ in range(2):
        client.send(b"message")
        assert await pod.receive() == b"message"
        # This is longer than ARP needs to fail.
        timers.advance(5)
    assert syslog.group.balancers.current.ejected(timers.now) == {}


async def revived(rig, pod):
    """Return an endpoint with the address of a closed endpoint."""
    return rig.keep(UdpPeer(port=pod.address.port))


@pytest.mark.parametrize("first", ["datagram", "error"])
@pytest.mark.parametrize("exchanges", [1, 2])
async def test_an_old_refusal_does_not_lose_a_datagram(rig, first, exchanges):
    pod, dns, client = rig.udp_served()
    for _ in range(exchanges):
        await exchange(client, pod)
    pod.close()
    # The refusal arrives now, but hasn't been read when the endpoint is back.
    rig.flow.sock.send(b"lost")
    back = await revived(rig, pod)
    client.send(b"good")
    if first == "datagram":
        dns.carrier.on(0, 0)
    assert await back.receive() == b"good"


@pytest.mark.parametrize("quiet_turns", [0, 2])
async def test_a_refusal_does_not_discard_an_earlier_unread_reply(rig, quiet_turns):
    pod, _, client = rig.udp_served()
    proxy = await exchange(client, pod)
    for _ in range(quiet_turns):
        rig.engine.reactor._dispatch()
    pod.send_to(b"good", proxy)
    pod.close()
    rig.flow.sock.send(b"lost")
    assert await client.receive() == b"good"


@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.EHOSTUNREACH, errno.ENETUNREACH])
async def test_a_transient_error_does_not_end_an_answered_flow(rig, number):
    pod, dns, client = rig.udp_served()
    await exchange(client, pod)
    flow = rig.flow
    report(flow, number)
    assert rig.flow is flow
    assert dns.group.totals().failures == 0
    await exchange(client, pod)


async def test_an_unanswered_flow_moves_on_from_an_unreachable_host(rig):
    pods = [rig.udp_peer() for _ in range(2)]
    dns = rig.udp_service(*(pod.address for pod in pods))
    rig.udp_client(dns).send(b"question")
    assert await pods[0].receive() == b"question"
    report(rig.flow, errno.EHOSTUNREACH)
    assert await pods[1].receive() == b"question"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL])
async def test_a_flow_moves_on_from_an_endpoint_to_which_sending_fails(rig, number):
    pods = [rig.udp_peer() for _ in range(2)]
    dns = rig.udp_service(*(pod.address for pod in pods))
    client = rig.udp_client(dns)
    client.send(b"first")
    assert await pods[0].receive() == b"first"
    rig.flow.sock = Failing(rig.flow.sock, number)
    client.send(b"second")
    assert [await pods[1].receive() for _ in range(2)] == [b"first", b"second"]
    dials = dns.group.counters_of(pods[0].address).dials
    assert (dials.part.failures, dials.part.number) == (1, number)


async def test_an_unsendable_large_datagram_counts_as_a_failure_and_ends_the_flow(rig):
    pod, dns, client = rig.udp_served()
    client.send(bytes(3000))
    assert await pod.receive() == bytes(3000)
    rig.flow.sock = Failing(rig.flow.sock, errno.EPERM)
    client.send(bytes(3000))
    await until(lambda: dns.group.totals().failures)
    assert len(rig.flows) == 0


@pytest.mark.parametrize(
    ("is_answered", "number"),
    [(False, errno.ENOBUFS), (False, errno.EMSGSIZE), (True, errno.EPERM)],
)
async def test_a_send_error_that_is_transient_or_follows_a_reply_drops_only_the_datagram(
    rig, is_answered, number
):
    pod, dns, client = rig.udp_served()
    client.send(b"question")
    assert await pod.receive() == b"question"
    rig.flow.first_byte_s = 0.0 if is_answered else None
    flow, sock = rig.flow, rig.flow.sock
    flow.sock = Failing(sock, number)
    client.send(b"lost")
    await until(lambda: dns.group.counters.dropped_datagrams)
    flow.sock = sock
    client.send(b"next")
    assert await pod.receive() == b"next"
    assert (rig.flow, dns.group.totals().failures) == (flow, 0)


def report(flow, number):
    """Put an error on a flow's socket."""
    sock = flow.sock
    failing = flow.sock = Failing(sock, number)
    flow.on(0, 0)
    if flow.sock is failing:
        flow.sock = sock


class Failing:
    """A socket whose first read, and each send, fails with an error."""

    def __init__(self, sock, number):
        self.fileno = sock.fileno
        self.close = sock.close
        self._number = number
        self._errors = [BlockingIOError(), OSError(number, "from the other side")]

    def recv_into(self, _buffer):
        raise self._errors.pop()

    def send(self, _payload):
        raise OSError(self._number, "here")

    def recvmsg(self, *_args):
        raise BlockingIOError


async def test_a_flow_without_a_descriptor_is_dropped_without_an_ejection(rig):
    pod, dns, client = rig.udp_served()
    with descriptors_left(0):
        client.send(b"question")
        await until(lambda: dns.group.counters.refused)
    assert dns.group.counters.shortages == 1
    await exchange(client, pod)


@pytest.mark.pure
async def test_a_flow_that_epoll_rejects_is_refused_and_removed(rig, monkeypatch):
    pod, dns, client = rig.udp_served()

    with monkeypatch.context() as patch:
        patch.setattr(rig.engine.reactor, "watch", out_of_watches)
        client.send(b"question")
        await until(lambda: dns.group.counters.refused)
    assert (dns.group.totals().active, len(rig.flows)) == (0, 0)
    await exchange(client, pod)


def preserve_clients(dialer, monkeypatch):
    """Dial from clients' addresses, on loopback, where the sockets needn't be transparent."""
    dialer.is_on = True
    monkeypatch.setattr(dialer.locality, "keeps_client", lambda *_: True)
    monkeypatch.setattr(client_address, "set_transparent", lambda _sock: None)


@pytest.mark.pure
async def test_a_flow_that_epoll_rejects_releases_its_clients_port(rig, monkeypatch):
    dialer = rig.engine.client_dialer
    dns = rig.udp_service(rig.udp_peer().address, at="127.0.0.2")
    preserve_clients(dialer, monkeypatch)
    monkeypatch.setattr(rig.engine.reactor, "watch", out_of_watches)
    before = kept_by(dialer)
    rig.udp_client(dns).send(b"question")
    await until(lambda: dns.group.counters.refused)
    assert kept_by(dialer) == before


@pytest.mark.pure
async def test_an_endpoint_counts_as_answering_a_client_only_while_the_flow_exists(
    rig, monkeypatch
):
    pod, dialer = rig.udp_peer(), rig.engine.client_dialer
    dns = rig.udp_service(pod.address, at="127.0.0.2")
    preserve_clients(dialer, monkeypatch)
    await exchange(rig.udp_client(dns), pod)
    assert dialer.answered_flows.has("127.0.0.1", pod.address)
    rig.update(dns)
    assert len(rig.flows) == 0
    assert not dialer.answered_flows.has("127.0.0.1", pod.address)


@pytest.mark.parametrize(("exchanges", "lasts"), [(1, 30), (2, 120)])
async def test_an_idle_flow_ends_at_its_timeout(timed, timers, exchanges, lasts):
    pod, _, client = timed.udp_served()
    for _ in range(exchanges):
        await exchange(client, pod)
    timers.advance(lasts - 1)
    assert len(timed.flows) == 1
    timers.advance(2)
    assert len(timed.flows) == 0
    assert timers.waiting == 0
    await exchange(client, pod)


async def test_a_resent_datagram_counts_as_activity(timed, timers):
    old, new = timed.udp_peer(), timed.udp_peer()
    dns = timed.udp_service(**HOLD)
    timed.udp_client(dns).send(b"question")
    await until(lambda: len(timed.flows))
    # Activity is recorded once a second, but not when the first endpoint is chosen.
    timers.advance(0.9)
    timed.update(dns, old.address, new.address, **HOLD)
    assert await old.receive() == b"question"
    timers.advance(0.9)
    old.close()
    timed.flow.sock.send(b"refused")
    assert await new.receive() == b"question"
    timers.advance(29)
    assert len(timed.flows) == 1
    timers.advance(2)
    assert len(timed.flows) == 0


async def test_flows_unanswered_for_three_seconds_form_a_streak_until_the_next_reply(timed, timers):
    pod = timed.udp_peer()
    dns = timed.udp_service(pod.address)
    ends = dns.group.counters_of(pod.address).ends
    await exchange(timed.udp_client(dns), pod)
    clients = [timed.udp_client(dns) for _ in range(3)]
    timers.advance(0.1)
    for client in clients:
        client.send(b"question")
        await pod.receive()
    timed.settle()
    assert not ends.is_on
    timers.advance(3.1)
    for _ in range(2):
        timed.settle()
        assert (ends.part.failures, ends.part.failure) == (3, Failure.NO_DATAGRAM)
    await exchange(timed.udp_client(dns), pod)
    assert not ends.is_on
    assert dns.group.counters_of(pod.address).unanswered == 3
    dns.close()
    assert sum(one.failed for one in timed.engine.calls.take()[0]) == 3


@pytest.mark.parametrize("looks", [0, 1])
async def test_a_flow_answered_late_counts_as_late_and_failed(timed, timers, looks):
    pod = timed.udp_peer()
    dns = timed.udp_service(pod.address)
    counters = dns.group.counters_of(pod.address)
    client = timed.udp_client(dns)
    client.send(b"question")
    _, proxy = await pod.receive_from()
    timers.advance(3.1)
    for _ in range(looks):
        timed.settle()
    assert (counters.unanswered, counters.late) == (looks, 0)
    pod.send_to(b"answer", proxy)
    assert await client.receive() == b"answer"
    assert (counters.unanswered, counters.late) == (0, 1)
    assert counters.ends.is_on
    assert counters.ends.part.late.waited_s == pytest.approx(3.1)
    dns.close()
    calls = timed.engine.calls.take()[0]
    assert (counters.unanswered_flows, [one.failed for one in calls]) == (1, [1])


async def test_an_unanswered_flow_is_dated_by_its_clients_request(timed, timers):
    pod, dns, client = timed.udp_served()
    client.send(b"question")
    await pod.receive()
    timers.advance(0.5)
    await exchange(timed.udp_client(dns), pod)
    timers.advance(2.5)
    timed.settle()
    counters = dns.group.counters_of(pod.address)
    assert (counters.unanswered, counters.ends.is_on) == (1, False)


async def test_a_flow_with_a_removed_endpoint_moves_to_another_endpoint_immediately(rig):
    pods = [rig.udp_peer() for _ in range(2)]
    dns = rig.udp_service(pods[0].address)
    client, other = rig.udp_client(dns), rig.udp_client(dns)
    old = await exchange(client, pods[0])
    await exchange(other, pods[0])
    rig.update(dns, pods[1].address)
    assert len(rig.flows) == 0
    pods[0].send_to(b"too late", old)
    await exchange(client, pods[1])
    assert client.received() == []


async def test_flows_to_remaining_endpoints_continue(rig):
    pods = [rig.udp_peer() for _ in range(2)]
    dns = rig.udp_service(*(pod.address for pod in pods))
    clients = [rig.udp_client(dns) for _ in pods]
    seen = [await exchange(client, pod) for client, pod in zip(clients, pods, strict=True)]
    rig.update(dns, pods[1].address)
    assert await exchange(clients[1], pods[1]) == seen[1]


async def test_closing_a_listener_ends_only_its_own_flows(rig):
    pod = rig.udp_peer()
    dns, ntp = rig.udp_service(pod.address), rig.udp_service(pod.address)
    await exchange(rig.udp_client(dns), pod)
    await exchange(rig.udp_client(ntp), pod)
    dns.close()
    assert len(rig.flows) == 1
    assert dns.group.on_removed == []


async def test_a_flow_that_ends_with_unread_replies_causes_no_error(rig):
    pod, dns, client = rig.udp_served()
    proxy = await exchange(client, pod)
    for _ in range(2 * BATCH):
        pod.send_to(b"answer", proxy)
    flow = rig.flow
    flow.on(0, 0)
    dns.close()
    await turns(5)
    assert rig.bugs == []
