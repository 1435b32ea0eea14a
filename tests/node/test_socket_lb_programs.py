"""The programs for connect(): dials that they translate, count, skip and report."""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns import Net
from tests.node.bpf_hooks import Dialled, bpf_rights, in_cgroup, own_cgroup
from tests.node.socket_lb_programs import Client, Pin, SocketLb, address_of, peer_of, serving
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering.socket_lb.socket_maps import (
    DialSettings,
    Ejection,
    EjectionScope,
    EventKind,
    Result,
)

pytestmark = [pytest.mark.kernel, pytest.mark.netns, pytest.mark.needs("connect hooks")]

# Addresses without a route: untranslated dials fail immediately.
WEB, OTHER = SocketAddress("10.96.0.1", 80), SocketAddress("10.96.0.2", 80)
WEB6, OTHER6 = SocketAddress("fd96::1", 80), SocketAddress("fd96::2", 80)
POD, POD6 = "127.0.1.1", "::1"
# No socket listens on this port.
DEAD = SocketAddress(POD, 9)
SECOND_NS = 1_000_000_000


@pytest.fixture(autouse=True)
def rights() -> Iterator[None]:
    with bpf_rights():
        yield


@pytest.fixture
def hooks(tmp_path: Path) -> Iterator[SocketLb]:
    with own_cgroup(tmp_path / "cgroup") as cgroup, in_cgroup(cgroup):
        hooks = SocketLb(cgroup)
        yield hooks
        hooks.close()


@pytest.fixture
def node() -> Iterator[Net]:
    node = Net("node")
    yield node
    node.close()


@pytest.fixture
def server(node: Net) -> Iterator[socket.socket]:
    with serving(node, POD) as server:
        yield server


@pytest.fixture
def other(node: Net) -> Iterator[socket.socket]:
    with serving(node, POD) as server:
        yield server


@pytest.fixture
def silent(node: Net) -> Iterator[socket.socket]:
    """A listener that answers no SYN because its backlog is full."""
    with serving(node, POD, backlog=0) as server, node.tcp() as first:
        first.connect(server.getsockname())
        yield server


def dial(net: Net, address: SocketAddress) -> str:
    """Connect and close; return ``served``, or the name of the error."""
    with net.tcp(socket.AF_INET6 if ":" in address.ip else socket.AF_INET) as client:
        try:
            client.connect(tuple(address))
        except OSError as exc:
            return errno.errorcode[exc.errno or 0]
    return "served"


def served_by(net: Net, *servers: socket.socket) -> socket.socket:
    """Dial WEB; return the server that answers."""
    with net.tcp() as client:
        client.connect(tuple(WEB))
        (ready, *_), _, _ = select.select(servers, [], [], 10)
        ready.accept()[0].close()
    return ready


def start_dial(net: Net, address: SocketAddress) -> socket.socket:
    client = net.tcp()
    client.setblocking(False)
    assert client.connect_ex(tuple(address)) == errno.EINPROGRESS
    return client


def wait_until_dialled(client: socket.socket) -> int:
    """Wait at most 10 s until a dial has ended; return its error number, or 0."""
    select.select([], [client], [], 10)
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def reset_at_close(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))


def netns_cookie(hooks: SocketLb, net: Net) -> int:
    """Return the netns cookie from a pin, because Linux before 5.14 has no socket option for it."""
    marked = SocketAddress("10.96.0.3", 80)
    hooks.lead(marked, DEAD, affinity=99)
    dial(net, marked)
    ((client, _),) = ((c, p) for c, p in hooks.pins().items() if c.affinity == 99)
    hooks.events()
    hooks.unpin(client)
    return client.netns


def test_dials_to_other_addresses_and_ports_are_not_translated(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    hooks.lead(WEB, address_of(server))
    hooks.lead(WEB6, SocketAddress(POD6, 9))
    others = [OTHER, WEB._replace(port=81), OTHER6, WEB6._replace(port=81)]
    assert [dial(node, address) for address in others] == ["ENETUNREACH"] * 4
    with node.tcp() as client:
        client.connect(server.getsockname())
        assert peer_of(client) == address_of(server)


def test_udp_connects_are_not_translated(hooks: SocketLb, node: Net, server: socket.socket) -> None:
    hooks.lead(WEB, address_of(server))
    with node.udp() as client, pytest.raises(OSError, match="unreachable"):
        client.connect(tuple(WEB))


def test_a_service_without_slots_is_not_translated(hooks: SocketLb, node: Net) -> None:
    hooks.lead(WEB)
    assert dial(node, WEB) == "ENETUNREACH"


def test_host_only_excludes_dials_from_other_namespaces(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    hooks.lead(WEB, address_of(server))
    pod = Net("pod")
    hooks.set(DialSettings(host_only=1, host_netns=netns_cookie(hooks, node)))
    assert [dial(node, WEB), dial(pod, WEB)] == ["served", "ENETUNREACH"]
    # 0 means the machine's first namespace, which is neither of these.
    hooks.set(DialSettings(host_only=1))
    assert [dial(node, WEB), dial(pod, WEB)] == ["ENETUNREACH"] * 2
    hooks.set(DialSettings())
    assert [dial(node, WEB), dial(pod, WEB)] == ["served", "ECONNREFUSED"]
    pod.close()


def test_dials_are_not_translated_after_the_term_expires(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    hooks.lead(WEB, address_of(server))
    hooks.set(DialSettings(valid_until_ns=time.monotonic_ns()))
    assert dial(node, WEB) == "ENETUNREACH"
    hooks.set(DialSettings(valid_until_ns=time.monotonic_ns() + 3600 * SECOND_NS))
    assert dial(node, WEB) == "served"


def test_endpoints_are_chosen_at_random_by_their_slots(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    hooks.lead(WEB, address_of(server), address_of(other), weights=(3, 1))
    chosen = Counter(served_by(node, server, other) for _ in range(400))
    # The counts must be within six standard deviations.
    assert 248 <= chosen[server] <= 352


def test_a_client_with_affinity_always_gets_the_same_endpoint(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    hooks.lead(WEB, address_of(server), address_of(other), affinity=7)
    first = served_by(node, server, other)
    assert {served_by(node, server, other) for _ in range(30)} == {first}
    assert [client.affinity for client in hooks.pins()] == [7]


def test_affinity_entries_are_per_network_namespace(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    hooks.lead(WEB, address_of(server), address_of(other), affinity=7)
    pod = Net("pod")
    assert [dial(node, WEB), dial(pod, WEB)] == ["served", "ECONNREFUSED"]
    clients = {client.netns for client in hooks.pins()}
    assert clients == {netns_cookie(hooks, node), netns_cookie(hooks, pod)}
    pod.close()


def test_an_affinity_entry_expires_after_its_timeout_since_the_last_dial(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    numbers = hooks.lead(WEB, address_of(server), address_of(other), affinity=7, timeout_s=10)
    served_by(node, server, other)
    ((client, pin),) = hooks.pins().items()

    def last_used(seconds: float) -> Pin:
        hooks.pin(client, pin._replace(last_ns=time.monotonic_ns() - int(seconds * SECOND_NS)))
        served_by(node, server, other)
        return hooks.pins()[client]

    for _ in range(10):
        used = last_used(5)
        assert used.endpoint == pin.endpoint
        assert used.last_ns > pin.last_ns
    assert {last_used(10.001).endpoint for _ in range(40)} == {*numbers}


def test_an_affinity_entry_for_a_removed_or_ejected_endpoint_is_replaced(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    first, second = hooks.lead(WEB, address_of(server), address_of(other), affinity=7)
    client = Client(netns_cookie(hooks, node), 7)
    hooks.pin(client, Pin(99, time.monotonic_ns()))
    assert dial(node, WEB) == "served"
    assert hooks.pins()[client].endpoint in (first, second)
    hooks.pin(client, Pin(first, time.monotonic_ns()))
    hooks.eject(first, ejected_for(5))
    assert served_by(node, other) is other
    assert hooks.pins()[client].endpoint == second


def ejected_for(seconds: float, times: int = 1) -> Ejection:
    """Return an ejection whose probe is due in this many seconds."""
    until = time.monotonic_ns() + int(seconds * SECOND_NS)
    return Ejection(until, times, EventKind.REFUSED)


def lasts_s(ejection: Ejection | None) -> float:
    assert ejection is not None
    return (ejection.until_ns - time.monotonic_ns()) / SECOND_NS


def test_a_refusing_endpoint_fails_a_single_dial_before_its_ejection(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    good, dead = hooks.lead(WEB, address_of(server), DEAD)
    ends = Counter(dial(node, WEB) for _ in range(100))
    assert ends == {"served": 99, "ECONNREFUSED": 1}
    assert (hooks.counts(good).established, hooks.counts(dead).refused) == (99, 1)
    (event,) = hooks.events()
    assert (event.kind, event.endpoint, event.frontend) == (EventKind.REFUSED, dead, WEB)
    until = event.at_ns + 5 * SECOND_NS
    scope = EjectionScope(dead, netns_cookie(hooks, node))
    assert hooks.ejections()[scope] == Ejection(until, 1, EventKind.REFUSED)


def test_an_ipv6_refusal_ejects_the_endpoint(hooks: SocketLb, node: Net) -> None:
    with serving(node, POD6) as server:
        _, dead = hooks.lead(WEB6, address_of(server), SocketAddress(POD6, 9))
        ends = Counter(dial(node, WEB6) for _ in range(60))
    assert ends == {"served": 59, "ECONNREFUSED": 1}
    (event,) = hooks.events()
    assert (event.endpoint, event.client.ip, event.frontend) == (dead, POD6, WEB6)


def test_a_retransmitted_syn_ejects_an_endpoint_until_a_late_syn_ack(
    hooks: SocketLb, node: Net, silent: socket.socket
) -> None:
    (number,) = hooks.lead(WEB, address_of(silent))
    with start_dial(node, WEB) as client:
        (event,) = hooks.next_events()
        assert (event.kind, event.client) == (EventKind.UNANSWERED, address_of(client))
        ((scope, ejection),) = hooks.ejections().items()
        assert scope.endpoint == number
        assert 0 < lasts_s(ejection) <= 5
        hooks.eject(number, ejected_for(5))
        silent.accept()[0].close()
        (event,) = hooks.next_events()
        assert (event.kind, event.endpoint) == (EventKind.RETURNED, number)
        assert wait_until_dialled(client) == 0
    assert hooks.ejections() == {}
    counts = hooks.counts(number)
    assert counts[:4] == (1, 0, 1, 0)
    # The SYN was retransmitted after 1 s, and possibly after 3 s.
    assert sum(counts.buckets[9:11]) == 1


def test_an_unanswered_dial_is_counted_once(
    hooks: SocketLb, node: Net, silent: socket.socket
) -> None:
    (number,) = hooks.lead(WEB, address_of(silent))
    hooks.set(DialSettings(observing=1))
    with start_dial(node, WEB):
        (event,) = hooks.next_events()
    (end,) = hooks.events()
    assert (event.kind, end.kind, end.result) == (
        EventKind.UNANSWERED, EventKind.CONNECTION, Result.UNANSWERED,
    )  # fmt: skip
    assert hooks.counts(number)[:5] == (0, 0, 1, 0, 0)


def test_a_client_that_closes_before_the_syn_ack_is_not_a_failure(
    hooks: SocketLb, node: Net, silent: socket.socket
) -> None:
    (number,) = hooks.lead(WEB, address_of(silent))
    start_dial(node, WEB).close()
    with node.tcp() as client:
        client.settimeout(0.01)
        with pytest.raises(TimeoutError):
            client.connect(tuple(WEB))
    assert hooks.counts(number)[:5] == (0, 0, 0, 2, 0)
    assert (hooks.ejections(), hooks.events()) == ({}, [])


def test_an_icmp_error_counts_as_refusal(hooks: SocketLb, node: Net, silent: socket.socket) -> None:
    (number,) = hooks.lead(WEB, address_of(silent))
    with node:
        packets = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        errors = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with packets, errors, start_dial(node, WEB) as client:
        errors.sendto(port_unreachable(packets.recv(100)), client.getsockname())
        assert wait_until_dialled(client) == errno.ECONNREFUSED
    assert hooks.counts(number)[:5] == (0, 1, 0, 0, 0)
    assert [event.kind for event in hooks.events()] == [EventKind.REFUSED]


def port_unreachable(packet: bytes) -> bytes:
    body = bytes(4) + packet[:28]
    words = struct.unpack(f"!{len(body) // 2}H", body)
    total = 0x0303 + sum(words)
    return struct.pack("!BBH", 3, 3, ~(total + (total >> 16)) & 0xFFFF) + body


def test_an_ejected_endpoint_is_dialled_if_all_endpoints_are_ejected(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    numbers = hooks.lead(WEB, address_of(server), address_of(other))
    for number in numbers:
        hooks.eject(number, ejected_for(50))
    assert dial(node, WEB) == "served"


def test_the_remaining_endpoints_share_an_ejected_endpoints_load(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    dead, *_ = hooks.lead(WEB, DEAD, address_of(server), address_of(other))
    hooks.eject(dead, ejected_for(50))
    chosen = Counter(served_by(node, server, other) for _ in range(600))
    # The counts must be within six standard deviations.
    assert 226 <= chosen[server] <= 374


@pytest.mark.parametrize("scope", ["all", "own"])
def test_a_due_probe_of_an_ejected_endpoint_is_a_single_dial(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket, scope: str
) -> None:
    netns = netns_cookie(hooks, node) if scope == "own" else 0
    due, _ = hooks.lead(WEB, address_of(server), address_of(other))
    hooks.eject(due, ejected_for(5), netns)
    assert {served_by(node, server, other) for _ in range(30)} == {other}
    hooks.eject(due, ejected_for(-1), netns)
    # Dial until that server answers.
    while served_by(node, server, other) is other:
        pass
    assert hooks.ejection(due, netns) is None
    # The end of an ejection in a single network namespace isn't reported as an event.
    assert [event.kind for event in hooks.events()] == [EventKind.RETURNED] * (netns == 0)
    assert {served_by(node, server, other) for _ in range(30)} == {server, other}


def test_an_endpoint_with_a_pending_probe_gets_no_other_dial(
    hooks: SocketLb, node: Net, server: socket.socket, silent: socket.socket
) -> None:
    due, _ = hooks.lead(WEB, address_of(silent), address_of(server))
    hooks.eject(due, ejected_for(-1))
    clients = [start_dial(node, WEB) for _ in range(30)]
    assert sum(is_pending(client) for client in clients) == 1
    ejection = hooks.ejection(due)
    assert ejection is not None
    assert (ejection.kind, ejection.times) == (EventKind.PROBED, 1)
    assert 0 < lasts_s(ejection) <= 3
    for client in clients:
        client.close()


def is_pending(client: socket.socket) -> bool:
    """Return whether a dial is pending; on one machine, answered dials complete immediately."""
    return not select.select([], [client], [], 0)[1]


def test_each_failed_probe_lengthens_the_ejection_up_to_60_s(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    netns = netns_cookie(hooks, node)
    dead, _ = hooks.lead(WEB, DEAD, address_of(server))
    lasted = []
    for times in range(1, 7):
        hooks.eject(dead, ejected_for(-1, times), netns)
        while dial(node, WEB) == "served":
            pass
        ejection = hooks.ejection(dead, netns)
        assert ejection is not None
        assert ejection.times == times + 1
        lasted.append(round(lasts_s(ejection)))
    assert lasted == [10, 20, 40, 60, 60, 60]
    assert [event.kind for event in hooks.events()] == [EventKind.REFUSED] * 6


def test_a_failed_dial_ejects_only_in_its_own_network_namespace(
    hooks: SocketLb, node: Net, server: socket.socket, other: socket.socket
) -> None:
    pods = [Net("first"), Net("second")]
    victim, _ = numbers = hooks.lead(WEB, address_of(server), address_of(other))
    for pod in pods:
        # In a pod's namespace no socket listens, and the second dial gets the other endpoint.
        assert [dial(pod, WEB), dial(pod, WEB)] == ["ECONNREFUSED"] * 2
    prefixes = {EjectionScope(n, netns_cookie(hooks, pod)) for n in numbers for pod in pods}
    assert prefixes <= set(hooks.ejections())
    assert {served_by(node, server, other) for _ in range(30)} == {server, other}
    # The ejections continue although the endpoint served these dials.
    assert prefixes <= set(hooks.ejections())
    hooks.eject(victim, ejected_for(5))
    assert {served_by(node, server, other) for _ in range(30)} == {other}
    for pod in pods:
        pod.close()


def test_a_failed_dial_does_not_prolong_an_ejection_for_all_namespaces(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    dead, _ = hooks.lead(WEB, DEAD, address_of(server))
    hooks.eject(dead, ejected_for(-1))
    while dial(node, WEB) == "served":
        pass
    ejection = hooks.ejection(dead)
    assert ejection is not None
    assert (ejection.kind, ejection.times) == (EventKind.PROBED, 1)
    assert 0 < lasts_s(ejection) <= 3
    own = hooks.ejection(dead, netns_cookie(hooks, node))
    assert own is not None
    assert 4 < lasts_s(own) <= 5


def test_a_failed_dial_to_an_ejected_endpoint_is_not_reported(hooks: SocketLb, node: Net) -> None:
    (dead,) = hooks.lead(WEB, DEAD)
    hooks.eject(dead, ejected_for(5))
    # The last endpoint is dialled nevertheless.
    assert dial(node, WEB) == "ECONNREFUSED"
    assert (list(hooks.ejections()), hooks.events()) == ([EjectionScope(dead)], [])


def test_failed_dial_reports_are_rate_limited_per_network_namespace(
    hooks: SocketLb, node: Net
) -> None:
    (number,) = hooks.lead(WEB, DEAD)
    began, own = time.monotonic(), netns_cookie(hooks, node)
    for _ in range(2000):
        assert dial(node, WEB) == "ECONNREFUSED"
        # End the ejection, as an answered dial does.
        hooks.readmit(number, own)
    seconds = int(time.monotonic() - began) + 1
    assert 32 <= len(hooks.events()) <= 64 * (seconds + 1)
    pod = Net("pod")
    assert dial(pod, WEB) == "ECONNREFUSED"
    assert len(hooks.events()) == 1
    pod.close()


def test_an_unknown_endpoint_is_not_ejected(hooks: SocketLb, node: Net) -> None:
    (number,) = hooks.lead(WEB, DEAD)
    hooks.forget(number)
    assert dial(node, WEB) == "ECONNREFUSED"
    assert (hooks.ejections(), hooks.events()) == ({}, [])


@pytest.mark.parametrize("first", ["client", "server", "half"])
def test_bytes_and_durations_are_counted_when_a_connection_ends(
    hooks: SocketLb, node: Net, server: socket.socket, first: str
) -> None:
    (number,) = hooks.lead(WEB, address_of(server))
    client = node.tcp()
    client.connect(tuple(WEB))
    accepted, _ = server.accept()
    client.sendall(b"x" * 1000)
    accepted.recv(1000, socket.MSG_WAITALL)
    accepted.sendall(b"y" * 3000)
    client.recv(3000, socket.MSG_WAITALL)
    assert hooks.counts(number).ended == 0
    if first == "half":
        client.shutdown(socket.SHUT_WR)
    ends = (accepted, client) if first == "server" else (client, accepted)
    if first == "half":
        ends = (accepted, client)
    ends[0].close()
    if first != "client":
        assert client.recv(1) == b""
    ends[1].close()
    counts = hooks.counts(number)
    assert counts[:8] == (1, 0, 0, 0, 1, 3000, 1000, 0)
    assert sum(counts.buckets) == 1
    assert 0 < counts.latency_ns < 10 * SECOND_NS
    assert 0 < counts.srtt_us < 10_000_000


def test_a_reset_ends_a_connection(hooks: SocketLb, node: Net, server: socket.socket) -> None:
    (number,) = hooks.lead(WEB, address_of(server))
    with node.tcp() as client:
        client.connect(tuple(WEB))
        accepted, _ = server.accept()
        reset_at_close(accepted)
        accepted.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert hooks.counts(number)[:7] == (1, 0, 0, 0, 1, 0, 0)


def test_connections_are_reported_as_events_only_while_observed(
    hooks: SocketLb, node: Net, server: socket.socket
) -> None:
    (number,) = hooks.lead(WEB, address_of(server))
    with node.tcp() as client:
        client.connect(tuple(WEB))
        reset_at_close(client)
    assert hooks.counts(number).ended == 1
    assert hooks.events() == []
    hooks.set(DialSettings(observing=1))
    before = time.monotonic_ns()
    with node.tcp() as client:
        client.connect(tuple(WEB))
        client.send(b"hello")
        name = address_of(client)
        reset_at_close(client)
    (event,) = hooks.events()
    assert (event.kind, event.endpoint, event.client, event.frontend, event.result) == (
        EventKind.CONNECTION, number, name, WEB, Result.SERVED,
    )  # fmt: skip
    assert (event.sent, event.received) == (5, 0)
    assert before < event.at_ns < time.monotonic_ns()
    assert 0 < event.waited_ns < event.ns < event.at_ns - before


def test_failed_dials_are_reported_as_ended_connections(hooks: SocketLb, node: Net) -> None:
    (number,) = hooks.lead(WEB, DEAD)
    hooks.set(DialSettings(observing=1))
    assert [dial(node, WEB), dial(node, WEB)] == ["ECONNREFUSED"] * 2
    events = [(event.kind, event.endpoint, event.result) for event in hooks.events()]
    ended = (EventKind.CONNECTION, number, Result.REFUSED)
    assert events == [(EventKind.REFUSED, number, Result.NONE), ended, ended]


def test_connection_events_lost_to_a_full_buffer_are_counted(hooks: SocketLb, node: Net) -> None:
    (number,) = hooks.lead(WEB, DEAD)
    hooks.set(DialSettings(observing=1))
    for _ in range(2500):
        assert dial(node, WEB) == "ECONNREFUSED"
    taken = sum(event.kind is EventKind.CONNECTION for event in hooks.events())
    assert 0 < taken < 2500
    assert hooks.counts(number).lost == 2500 - taken


def test_another_programs_socket_callbacks_are_still_called(
    tmp_path: Path, node: Net, server: socket.socket
) -> None:
    with own_cgroup(tmp_path / "cgroup") as cgroup, in_cgroup(cgroup):
        # The other program leads a dial to a frontend that the program attached next translates.
        other = Dialled(cgroup)
        other.lead(tuple(OTHER), tuple(WEB))
        hooks = SocketLb(cgroup)
        (number,) = hooks.lead(WEB, address_of(server))
        with node.tcp() as client:
            client.connect(tuple(OTHER))
            accepted, _ = server.accept()
            client.sendall(b"x")
            accepted.recv(1)
            accepted.close()
        assert hooks.counts(number).ended == 1
        assert other.measured(tuple(OTHER)) > 0
        for programs in (hooks, other):
            programs.close()
