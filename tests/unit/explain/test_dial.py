import contextlib
import errno
import os
import socket

import pytest

from tests.netns import Net
from tests.processes import started
from tests.unit.port_numbers import free_port
from tests.unit.status.views import make_view
from userspace_proxy.answering_child import ChildEnded
from userspace_proxy.causes.cause import CauseCode
from userspace_proxy.causes.endpoints import no_route, route_prohibits, route_unreachable
from userspace_proxy.causes.say import remedy, say
from userspace_proxy.explain.dial import dial, dial_all, dial_by, find_way
from userspace_proxy.facts import WorkerFacts
from userspace_proxy.kernel.own_namespace import network_namespace
from userspace_proxy.model import SocketAddress


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        yield server


def address_of(server):
    return SocketAddress(*server.getsockname())


def test_a_silent_but_accepting_endpoint_counts_as_reachable(listener):
    result = dial(address_of(listener))
    assert result.cause is None
    assert 0 < result.seconds < 1


def test_a_probe_dial_leaves_nothing_in_the_accept_queue(listener):
    assert dial(address_of(listener)).cause is None
    with socket.create_connection(listener.getsockname()) as client:
        accepted, peer = listener.accept()
        accepted.close()
        assert peer == client.getsockname()


def test_a_dial_to_a_silent_endpoint_times_out(listener):
    """A full accept queue drops further SYNs, like a silent host."""
    listener.listen(0)
    with socket.create_connection(listener.getsockname()):
        results = [dial(address_of(listener), silence_s=0.05) for _ in range(3)]
    causes = [result.cause for result in results if result.cause is not None]
    assert {cause.code for cause in causes} == {CauseCode.ENDPOINT_SILENT}


def test_explain_dials_each_address_once(listener):
    at, dead = address_of(listener), SocketAddress("127.0.0.1", free_port())
    results = dial_all([at, dead, at])
    assert {address: result.cause is None for address, result in results.items()} == {
        str(at): True,
        str(dead): False,
    }
    assert dial_all([]) == {}


REFUSES, UNREACHABLE, FAILS = (
    CauseCode.ENDPOINT_REFUSES,
    CauseCode.ENDPOINT_UNREACHABLE,
    CauseCode.ENDPOINT_FAILS,
)
REJECTIONS = [
    ("ip", "tcp reset", errno.ECONNREFUSED, REFUSES),
    ("ip", "icmp type port-unreachable", errno.ECONNREFUSED, REFUSES),
    ("ip", "icmp type host-unreachable", errno.EHOSTUNREACH, UNREACHABLE),
    ("ip", "icmp type net-unreachable", errno.ENETUNREACH, UNREACHABLE),
    ("ip", "icmp type host-prohibited", errno.EHOSTUNREACH, UNREACHABLE),
    ("ip", "icmp type net-prohibited", errno.ENETUNREACH, UNREACHABLE),
    ("ip", "icmp type admin-prohibited", errno.EHOSTUNREACH, UNREACHABLE),
    ("ip", "icmp type prot-unreachable", errno.ENOPROTOOPT, FAILS),
    ("ip6", "tcp reset", errno.ECONNREFUSED, REFUSES),
    ("ip6", "icmpv6 type port-unreachable", errno.ECONNREFUSED, REFUSES),
    ("ip6", "icmpv6 type addr-unreachable", errno.EHOSTUNREACH, UNREACHABLE),
    ("ip6", "icmpv6 type no-route", errno.ENETUNREACH, UNREACHABLE),
    ("ip6", "icmpv6 type admin-prohibited", errno.EACCES, UNREACHABLE),
    ("ip6", "icmpv6 type policy-fail", errno.EACCES, UNREACHABLE),
    ("ip6", "icmpv6 type reject-route", errno.EACCES, UNREACHABLE),
]


def rejecting(number):
    """Return the address of a listener to which rule ``number`` of REJECTIONS rejects packets."""
    family = REJECTIONS[number][0]
    return SocketAddress("127.0.0.1" if family == "ip" else "::1", 9000 + number)


@pytest.fixture(scope="module")
def rejected():
    """The results of simultaneous dials; an ICMP error that arrives during connect() is lost."""
    net = Net("rejecting")
    rules = [
        f"nft add rule {family} t c tcp dport {rejecting(number).port} reject with {how}"
        for number, (family, how, _, _) in enumerate(REJECTIONS)
    ]
    hook = "{ type filter hook input priority 0; }"
    for family in ("ip", "ip6"):
        net.run(f"nft add table {family} t; nft add chain {family} t c '{hook}'")
    net.run("; ".join(rules))
    addresses = [rejecting(number) for number in range(len(REJECTIONS))]
    with net, contextlib.ExitStack() as servers:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
            servers.enter_context(socket.create_server((address.ip, address.port), family=family))
        yield dial_all(addresses)
    net.close()


@pytest.mark.parametrize(
    "number", range(len(REJECTIONS)), ids=lambda number: " ".join(REJECTIONS[number][:2])
)
def test_a_firewall_rejection_has_a_cause_mentioning_firewalls(rejected, number):
    _, _, error, code = REJECTIONS[number]
    result = rejected[str(rejecting(number))]
    assert (result.error, result.cause.code) == (os.strerror(error), code)
    assert "firewall" in (remedy(result.cause) if code is FAILS else say(result.cause))


def test_a_missing_route_is_the_cause_of_a_failed_dial():
    net = Net("node")
    with net:
        result = dial(SocketAddress("10.98.0.5", 80))
    net.close()
    assert (result.error, result.has_no_route) == ("Network is unreachable", True)
    assert result.cause == no_route("10.98.0.5:80")


@pytest.mark.parametrize(
    ("kind", "error", "cause"),
    [
        ("prohibit", errno.EACCES, route_prohibits),
        ("unreachable", errno.EHOSTUNREACH, route_unreachable),
    ],
)
@pytest.mark.parametrize("ip", ["10.98.0.5", "fd00:98::5"], ids=["ipv4", "ipv6"])
def test_an_unreachable_or_prohibit_route_is_the_cause_of_a_failed_dial(ip, kind, error, cause):
    net = Net("node")
    with net:
        net.run(f"ip route add {kind} {ip}")
        result = dial(SocketAddress(ip, 80))
    net.close()
    assert (result.error, result.has_no_route) == (os.strerror(error), True)
    assert result.cause == cause(SocketAddress(ip, 80))


@pytest.fixture
def there():
    net = Net("there")
    yield net
    net.close()


@pytest.fixture
def worker(there):
    """A process in a network namespace of its own."""
    command = ["nsenter", f"--net=/proc/self/fd/{there.fd}", "sh", "-c", "echo; exec cat"]
    with started(command, pass_fds=[there.fd]) as process:
        process.stdout.readline()
        yield process


def view_of(pid, namespace):
    workers = [WorkerFacts(pid=0), WorkerFacts(pid=pid)]
    return make_view(workers=workers, network_namespace=namespace)


def test_in_the_proxys_own_network_no_namespace_is_entered(worker):
    here = network_namespace()
    assert find_way(None) == ()
    assert find_way(view_of(worker.pid, 0)) == ()
    assert find_way(view_of(worker.pid, here)) == ()


def test_endpoints_are_dialled_in_the_network_namespace_of_the_proxy(there, worker):
    with there:
        server = socket.create_server(("127.0.0.1", 0))
    open_at, closed_at = SocketAddress(*server.getsockname()), SocketAddress("127.0.0.1", 1)
    beyond = SocketAddress("10.98.0.5", 80)
    way = find_way(view_of(worker.pid, network_namespace(worker.pid)))
    with server:
        results = dial_by(way, [open_at, closed_at, beyond])
    assert results[str(open_at)].cause is None
    assert results[str(open_at)].seconds < 60
    assert results[str(closed_at)].cause.code is CauseCode.ENDPOINT_REFUSES
    assert results[str(closed_at)].error == "Connection refused"
    assert [one.has_no_route for one in results.values()] == [False, False, True]


def test_endpoints_are_dialled_locally_without_a_namespace_to_enter():
    at = SocketAddress("127.0.0.1", free_port())
    assert dial_by((), [at])[str(at)].cause.code is CauseCode.ENDPOINT_REFUSES


def test_a_worker_in_another_namespace_than_the_proxy_is_not_entered(worker):
    with contextlib.closing(Net("elsewhere")) as elsewhere:
        inode = os.fstat(elsewhere.fd).st_ino
        assert find_way(view_of(worker.pid, inode)) is None


def test_root_enters_only_the_network_namespace_of_the_proxy(monkeypatch):
    """The creator of a user namespace could trace a child in it."""
    command = ["unshare", "-Urn", "sh", "-c", "ip link set lo up; echo; exec cat"]
    with started(command) as worker:
        worker.stdout.readline()
        shown = view_of(worker.pid, network_namespace(worker.pid))
        way = find_way(shown)
        assert way[2:] == ("--net", "--")
        at = SocketAddress("127.0.0.1", 1)
        assert dial_by(way, [at])[str(at)].cause.code is CauseCode.ENDPOINT_REFUSES
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert find_way(shown)[2:] == ("--user", "--preserve-credentials", "--net", "--")


def test_a_worker_that_has_exited_is_an_error(worker):
    way = find_way(view_of(worker.pid, network_namespace(worker.pid)))
    worker.stdin.close()
    worker.wait(30)
    with pytest.raises(ChildEnded):
        dial_by(way, [SocketAddress("127.0.0.1", 1)])
