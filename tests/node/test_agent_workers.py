"""A real agent's worker processes: who they are, how they share clients, what their death costs."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import HEALTH
from tests.node.clients import ask, echoes
from tests.node.manifests import CLIENT_IP, Service, with_endpoints
from tests.node.testbed import Testbed, steerings
from userspace_proxy.plane.privileges import CAP_NET_RAW, WORKER_ID

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
CART = Service("cart", "10.96.0.20", more=CLIENT_IP)
ECHO = Service("echo", "10.96.0.40", 7, target=81)
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
PINNED_DNS = Service("pinned-dns", "10.96.0.54", 53, "UDP", target=53, more=CLIENT_IP)
PODS = ("one", "two", "three")
REQUESTS = 30


def start(testbed):
    """Serve all of the above by three pods."""
    pods = testbed.add_pods(*PODS, tcp=8080, echo=81, udp=53)
    testbed.serve(*(with_endpoints(s, pods) for s in (WEB, CART, ECHO, DNS, PINNED_DNS)))
    wait_for("all workers", lambda: all(w["pid"] for w in workers(testbed)))


@pytest.fixture(scope="module", params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path_factory):
    """A node whose agent has two workers."""
    with Testbed(tmp_path_factory.mktemp("agent"), request.param, "--workers=2") as testbed:
        start(testbed)
        yield testbed


@pytest.fixture(scope="module")
def small_house(tmp_path_factory):
    """A node whose agent has one."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables", "--workers=1") as testbed:
        start(testbed)
        yield testbed


@pytest.fixture(autouse=True)
def _hang_up(request):
    yield
    for name in {"testbed", "small_house"} & set(request.fixturenames):
        request.getfixturevalue(name).hang_up()


def workers(testbed):
    """Return what the page's JSON says of the workers."""
    return testbed.agent.status()["workers"]


def counted(testbed, service):
    """Return the sums of a Service, as the page's JSON has them at this moment."""
    port = testbed.agent.port(service.name)
    return Counter({name: port[name] for name in ("connections", "received_bytes", "sent_bytes")})


def process(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines)


def connect_by(testbed, worker):
    """Return an open connection to an echo that this worker carries."""
    while True:
        before = workers(testbed)[worker]["connections"]
        connection = testbed["pod"].dial(ECHO.address)
        assert echoes(connection)
        if workers(testbed)[worker]["connections"] > before:
            return connection


def test_workers_are_unprivileged_except_for_the_capability_for_client_addresses(testbed):
    """In a user namespace with one user they stay that one."""
    agent = process(testbed.agent.pid)
    mapped = Path(f"/proc/{testbed.agent.pid}/uid_map").read_text().split()
    user = str(WORKER_ID) if int(mapped[2]) > WORKER_ID else agent["Uid"].split()[0]
    assert int(agent["CapEff"], 16) != 0
    for worker in workers(testbed):

        def has_user(pid=worker["pid"]):
            return process(pid)["Uid"].split() == [user] * 4

        # A worker begins as the agent's user.
        wait_for(f"a worker of user {user}", has_user)
        said = process(worker["pid"])
        sets = ("CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd")
        kept = 1 << CAP_NET_RAW
        assert [int(said[name], 16) for name in sets] == [kept, kept, 0, 0, 0]
        assert said["NoNewPrivs"] == "1"
        assert said["PPid"] == str(testbed.agent.pid)


def test_a_killed_worker_costs_its_own_connections_and_no_new_one(testbed):
    pod = testbed["pod"]
    before = workers(testbed)
    kept, lost = connect_by(testbed, 1), connect_by(testbed, 0)
    sums = counted(testbed, WEB)
    os.kill(before[0]["pid"], signal.SIGKILL)
    answers = Counter(pod.get(WEB.address) for _ in range(REQUESTS))
    assert {asks_again(pod) for _ in range(REQUESTS)} == {f"{name}: hello" for name in PODS}
    assert sum(answers.values()) == REQUESTS
    assert echoes(kept)
    assert ended(lost)
    after = wait_for("both workers", lambda: both_run(testbed))
    assert [w["restarts"] - b["restarts"] for w, b in zip(after, before, strict=True)] == [1, 0]
    assert after[0]["pid"] != before[0]["pid"]
    assert after[1]["pid"] == before[1]["pid"]
    assert (counted(testbed, WEB) - sums)["connections"] == REQUESTS
    assert "worker 0 ended by signal 9 and is started again" in testbed.agent.log()
    assert testbed.agent.is_healthy()


def test_a_worker_that_hangs_is_replaced_and_costs_its_own_connections_only(testbed):
    pod = testbed["pod"]
    before = workers(testbed)
    kept, lost = connect_by(testbed, 1), connect_by(testbed, 0)
    os.kill(before[0]["pid"], signal.SIGSTOP)
    answers = [pod.get(WEB.address) for _ in range(REQUESTS)]
    assert set(answers) == set(PODS)
    assert echoes(kept)
    assert ended(lost)
    after = wait_for("both workers", lambda: both_run(testbed))
    assert [w["hung"] - b["hung"] for w, b in zip(after, before, strict=True)] == [1, 0]
    assert after[0]["pid"] != before[0]["pid"]
    assert after[1]["pid"] == before[1]["pid"]
    assert testbed.agent.log().count("worker 0 hung and is started again") == 1
    metrics = testbed.agent.read("/metrics")[1]
    assert 'userspace_proxy_worker_restarts_total{worker="0",cause="hung"} 1' in metrics


def test_healthz_fails_while_the_only_worker_that_hung_is_replaced(small_house):
    agent = small_house.agent
    (before,) = workers(small_house)
    os.kill(before["pid"], signal.SIGSTOP)
    wait_for("503", lambda: agent.read("/healthz", port=HEALTH)[0] == 503)
    assert agent.read("/livez", port=HEALTH)[0] == 200
    wait_for("a healthy agent", agent.is_healthy)
    (after,) = workers(small_house)
    assert after["hung"] - before["hung"] == 1
    assert small_house["pod"].get(WEB.address) in PODS


def asks_again(client):
    """Return a DNS server's answer; a datagram that a killed worker had read is lost."""
    with client.new_udp() as sock:
        sock.connect(DNS.address)

        def answer():
            sock.settimeout(1)
            try:
                return ask(sock).decode()
            except TimeoutError:
                return ""

        return wait_for("an answer", answer)


def both_run(testbed):
    """Return the workers if none is missing."""
    status = testbed.agent.status()
    return status["workers"] if not status["worker_problems"] else None


def ended(connection):
    """Return whether a connection has ended, one way or the other."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True
