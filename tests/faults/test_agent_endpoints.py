"""Endpoints that are dead, unreachable or silent behind a running agent: no client pays."""

import socket
import time

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S, read_all
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

REQUESTS = 30
WORKERS = 2
# Below the connect timeout of 1 s, and far above what a request takes that meets nobody silent.
WAITED_S = 0.9
# The connect timeout and much more, as a busy machine may need it.
LONG_S = 3.0

WEB = Service("web", "10.96.0.10")
CRASHED = Service("crashed", "10.96.0.11")
UNREACHABLE = Service("unreachable", "10.96.0.12")
SILENT = Service("silent", "10.96.0.13")
SILENT_PAIR = Service("silent-pair", "10.96.0.14")
ALL_CRASHED = Service("all-crashed", "10.96.0.15")
DYING = Service("dying", "10.96.0.16")
CRASHED_UDP = Service("crashed-udp", "10.96.0.53", 53, "UDP", target=53)


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path_factory):
    """A node whose Services have good endpoints and bad ones."""
    with Testbed(
        tmp_path_factory.mktemp("agent"), request.param, f"--workers={WORKERS}"
    ) as testbed:
        good = testbed.add_pods("good-1", "good-2", tcp=8080, udp=53)
        stalled = testbed.add_pods("stalled", tcp=8080)
        testbed.pod("stalled").drop_traffic()
        mortal = testbed.add_pods("mortal", tcp=8080)
        # A pod without a server: its kernel refuses, as that of a crashed container does.
        crashed = [str(testbed.sandbox.add_pod("crashed").ip)]
        gone = [str(testbed.sandbox.add_pod("gone").ip)]
        testbed.pod("gone").close()
        testbed.serve(
            with_endpoints(WEB, good),
            with_endpoints(CRASHED, [*crashed, *good]),
            with_endpoints(UNREACHABLE, [good[0], *gone, good[1]]),
            with_endpoints(SILENT, [*stalled, *good]),
            with_endpoints(SILENT_PAIR, [*stalled, good[0]]),
            with_endpoints(ALL_CRASHED, crashed),
            with_endpoints(DYING, [*mortal, good[0]]),
            with_endpoints(CRASHED_UDP, [*crashed, *good]),
        )
        yield testbed


@pytest.fixture(autouse=True)
def _hang_up(testbed):
    yield
    testbed.hang_up()


@pytest.fixture
def pod(testbed):
    return testbed["pod"]


@pytest.mark.parametrize("service", [CRASHED, UNREACHABLE], ids=lambda service: service.name)
def test_with_one_dead_endpoint_of_three_no_request_fails_and_the_others_take_turns(pod, service):
    answers = [pod.get(service.address) for _ in range(REQUESTS)]
    # Each of the two workers takes strict turns.
    assert abs(answers.count("good-1") - answers.count("good-2")) <= 2
    assert set(answers) == {"good-1", "good-2"}


def test_with_one_crashed_endpoint_of_three_every_udp_client_is_answered(pod):
    answers = [pod.asks(CRASHED_UDP.address) for _ in range(REQUESTS)]
    assert set(answers) == {"good-1: hello", "good-2: hello"}


def test_a_silent_endpoint_delays_one_request_per_worker_and_fails_none(testbed, pod):
    def seconds():
        began = time.monotonic()
        assert pod.get(SILENT.address) in ("good-1", "good-2")
        return time.monotonic() - began

    waits = [seconds() for _ in range(REQUESTS)]
    dials = failures(testbed, SILENT)
    assert dials >= 1
    assert sum(wait > WAITED_S for wait in waits) == dials
    # The first request, the next one if the other worker hasn't learned of it yet, and a probe
    # every 5 s if the machine is that slow.
    assert dials <= WORKERS + sum(waits) / 5
    assert max(waits) < LONG_S


def test_while_one_connection_waits_for_a_silent_endpoint_others_are_served(pod):
    waiting = {}
    for number in range(2):
        connection = pod.dial(SILENT_PAIR.address)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        waiting[number] = connection
    assert {pod.get(WEB.address) for _ in range(4)} == {"good-1", "good-2"}
    wait_for("one answer", lambda: any(map(has_data, waiting.values())))
    assert not all(map(has_data, waiting.values()))
    assert all(b"good-1" in read_all(connection) for connection in waiting.values())


def test_when_every_endpoint_has_crashed_the_client_is_reset_and_not_hung_up_on(pod):
    def outcome():
        try:
            connection = pod.dial(ALL_CRASHED.address)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return read_all(connection)
        except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError) as exc:
            return type(exc)

    # Whether the reset meets the dial, the request or the answer is a matter of luck.
    assert {outcome() for _ in range(5)} <= {ConnectionResetError, ConnectionRefusedError}


def test_an_endpoint_that_dies_between_two_requests_costs_none_of_them(testbed, pod):
    assert {pod.get(DYING.address) for _ in range(4)} == {"mortal", "good-1"}
    testbed.pod("mortal").close()
    assert {pod.get(DYING.address) for _ in range(4)} == {"good-1"}


def failures(testbed, service):
    """Return how many dials of a Service's endpoints have failed."""
    endpoints = testbed.agent.port(service.name)["endpoints"]
    return sum(endpoint["failures"] for endpoint in endpoints)


def has_data(connection):
    connection.setblocking(False)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        connection.settimeout(DEADLINE_S)
