"""Port ranges: each port is translated to an endpoint's port, in real namespaces."""

import contextlib
import itertools
import threading

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP
from tests.node.range_servers import RangePod, asks, service
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

IPS = {4: "10.96.0.21", 6: "fd00:96::21"}
FIRST, MIDDLE, LAST = 20000, 25000, 30000
OWN = 25001
PORTS = [
    ("media", "UDP", FIRST, FIRST),
    ("own", "UDP", OWN, OWN + 10),
    ("data", "TCP", MIDDLE, MIDDLE),
    ("own-tcp", "TCP", OWN, OWN + 10),
]
RANGES = {"port-ranges": f"media={FIRST}-{LAST}, data={FIRST}-{LAST}"}
MOVED_IPS = {4: "10.96.0.22", 6: "fd00:96::22"}
# Ranges are shifted to larger and to smaller numbers; `far` in several parts, because its first
# port is less than half its last.
MOVED = [
    ("up", "UDP", 100, FIRST),
    ("up-tcp", "TCP", 100, FIRST),
    ("down", "UDP", 60000, MIDDLE),
    ("down-tcp", "TCP", 60000, MIDDLE),
    ("far", "UDP", 20500, 19999),
]
MOVED_RANGES = {
    "port-ranges": "up=100-300, up-tcp=100-300, down=50000-65000, down-tcp=50000-65000, "
    "far=20500-45000"
}
SERVED = (FIRST - 1, FIRST, MIDDLE, OWN, OWN + 10, LAST, LAST + 1)
WAYS = ["nftables userspace", "nftables kernel", "iptables userspace"]
PROTOCOLS = {"nftables": ("TCP", "UDP"), "iptables": ("TCP",), "local": ()}


@pytest.fixture(scope="module", params=WAYS)
def testbed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    steering, path = request.param.split()
    flags = f"--path={path}", "--workers=1"
    with Testbed(folder, steering, *flags, clients=["pod", "node-1"]) as testbed:
        pods = [RangePod(testbed, name, SERVED) for name in ("one", "two")]
        testbed.agent.manifests.write_objects(
            [
                *service("media", tuple(IPS.values()), PORTS, RANGES, pods=pods),
                *service("moved", tuple(MOVED_IPS.values()), MOVED, MOVED_RANGES, pods=pods),
            ]
        )
        testbed.agent.start_until_ready()
        yield testbed


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
@pytest.mark.parametrize("client", ["pod", "node-1"])
@pytest.mark.parametrize(
    ("port", "answered"),
    [
        (FIRST - 1, "none"),
        (FIRST, FIRST),
        (MIDDLE, MIDDLE),
        (OWN, OWN + 10),
        (LAST, LAST),
        (LAST + 1, "none"),
    ],
)
def test_ports_of_a_range_reach_their_target_ports_and_ports_outside_reach_none(
    testbed, version, protocol, client, port, answered
):
    if protocol not in PROTOCOLS[testbed.agent.steering] and port not in (FIRST, OWN):
        answered = "none"
    answer = asks(testbed[client], (IPS[version], port), protocol, is_served=answered != "none")
    assert answer.rpartition(" ")[2] == str(answered), testbed.rules()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("protocol", "port", "answered"),
    [
        *((protocol, 100, FIRST) for protocol in ("TCP", "UDP")),
        *((protocol, 60000, MIDDLE) for protocol in ("TCP", "UDP")),
        *((protocol, 60001, OWN) for protocol in ("TCP", "UDP")),
        *((protocol, 65000, LAST) for protocol in ("TCP", "UDP")),
        ("UDP", 20501, FIRST),
        ("UDP", 30501, LAST),
    ],
)
def test_a_range_is_shifted_to_its_target_port(testbed, version, protocol, port, answered):
    if protocol not in PROTOCOLS[testbed.agent.steering] and port not in (100, 60000):
        answered = "none"
    is_served = answered != "none"
    answer = asks(testbed["pod"], (MOVED_IPS[version], port), protocol, is_served=is_served)
    assert answer.rpartition(" ")[2] == str(answered)


class Life:
    """A Service with a UDP and a TCP range; tests change its spec and restart the agent."""

    def __init__(self, testbed):
        self.testbed = testbed
        self.protocols = PROTOCOLS[testbed.agent.steering]
        self.udp_port = MIDDLE if "UDP" in self.protocols else FIRST
        self.pods = [RangePod(testbed, name, SERVED) for name in ("one", "two")]

    def write(self, ranges=f"media={FIRST}-{LAST}, data={FIRST}-{LAST}", pods=None, **more):
        annotations = {"port-ranges": ranges, **more} if ranges else more
        ports = [one for one in PORTS if not one[0].startswith("own")]
        pods = self.pods if pods is None else pods
        objects = service("media", [IPS[4]], ports, annotations, pods=pods)
        self.testbed.agent.manifests.write_objects(objects)

    def ask(self, port, protocol, **more):
        return asks(self.testbed["pod"], (IPS[4], port), protocol, **more)

    def wait_for(self, port, protocol, answers):
        """Wait until exactly these pods answer; without pods, until no pod does."""

        def is_so():
            said = (self.ask(port, protocol, is_served=bool(answers)) for _ in range(12))
            first = {answer.partition(" ")[0] for answer in itertools.islice(said, 1)}
            wanted = set(answers or ["none"])
            return first <= wanted and first | {a.partition(" ")[0] for a in said} == wanted

        wait_for(f"answers of {answers}", is_so, hint=self.testbed.agent.log)

    def wait_for_all(self, port, answers):
        """Wait until, by each protocol that has ranges, exactly these pods answer."""
        for protocol in self.protocols:
            self.wait_for(port, protocol, answers)


def asks_again(flow):
    """Send a datagram on a flow; return the name of the pod that answers, empty without an answer.

    The kernel drops an answer if the flow's conntrack entry was deleted after the question.
    """
    flow.send(b"hello")
    with contextlib.suppress(TimeoutError):
        return flow.recv(100).decode().partition(" ")[0]
    return ""


@pytest.fixture(params=WAYS)
def life(request, tmp_path):
    steering, path = request.param.split()
    flags = f"--path={path}", "--workers=1"
    with Testbed(tmp_path, steering, *flags, clients=["pod"]) as testbed:
        life = Life(testbed)
        yield life


def test_endpoints_of_a_range_can_be_added_and_removed_without_leftovers(life):
    agent = life.testbed.agent
    life.write()
    agent.start_until_ready()
    life.wait_for_all(LAST, ["one", "two"])
    flow = life.testbed["pod"].udp((IPS[4], life.udp_port))
    gone = asks_again(flow)
    left = [pod for pod in life.pods if pod.host.name != gone]
    life.write(pods=left)
    life.wait_for_all(LAST, [left[0].host.name])
    # The flow of the removed endpoint is moved.
    wait_for("the flow at the other pod", lambda: asks_again(flow) == left[0].host.name)
    life.write(pods=[])
    life.wait_for_all(LAST, [])
    with pytest.raises(ConnectionRefusedError):
        life.testbed["pod"].dial((IPS[4], LAST))
    at = IPS[4], life.udp_port
    # UDP may be refused later than TCP.
    wait_for("a refused datagram", lambda: life.testbed["pod"].udp_refusal(at) == "refused")
    life.write()
    life.wait_for_all(FIRST, ["one", "two"])
    life.write(ranges="")
    life.wait_for_all(LAST, [])
    steering = [line for line in life.testbed.rules().splitlines() if "timeout 1m" not in line]
    assert str(LAST) not in "".join(steering), "only the count of refused clients has it"
    assert life.ask(MIDDLE, "TCP").endswith(str(MIDDLE))


def test_a_range_is_served_through_changes_and_after_a_restart(life):
    agent = life.testbed.agent
    life.write()
    agent.start_until_ready()
    answers, failed, ended = [], [], threading.Event()

    def load():
        while not ended.wait(0.02):
            for protocol in life.protocols:
                answer = life.ask(MIDDLE, protocol)
                (answers if answer.endswith(str(MIDDLE)) else failed).append(answer)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        for last, served, outside in (
            (LAST - 10, FIRST, LAST),
            (LAST + 1, LAST + 1, None),
            (LAST, LAST, LAST + 1),
        ):
            life.write(f"media={FIRST}-{last}, data={FIRST}-{last}")
            if outside is not None:
                life.wait_for_all(outside, [])
            life.wait_for_all(served, ["one", "two"])
    finally:
        ended.set()
        loading.join()
    assert not failed, agent.log()
    assert len(answers) > 10
    agent.stop()
    agent.start_until_ready()
    life.wait_for_all(LAST, ["one", "two"])


@pytest.mark.parametrize("life", ["nftables userspace"], indirect=True)
def test_in_userspace_a_dead_endpoint_fails_no_connection_to_a_range(life):
    life.write()
    life.testbed.agent.start_until_ready()
    life.wait_for(LAST, "TCP", ["one", "two"])
    life.pods[0].kill()
    assert [life.ask(LAST, "TCP") for _ in range(20)] == [f"two {LAST}"] * 20
    ports = life.testbed.agent.status()["ports"]
    assert sum(port["saved"] for port in ports if port["port"] == "data") > 0


def test_without_range_rules_each_port_of_a_short_range_has_a_listener(tmp_path):
    first, last = OWN - 51, OWN + 48
    with Testbed(tmp_path, "local", "--workers=2", clients=["pod", "node-1"]) as testbed:
        agent, before = testbed.agent, testbed.rules()
        pods = [RangePod(testbed, "one", (*SERVED, first - 1, first, last, last + 1))]

        def write(ranges, *more):
            objects = service("media", tuple(IPS.values()), [*PORTS, *more], ranges, pods=pods)
            agent.manifests.write_objects(objects)

        def answers(*ports):
            """Return the ports that answer two clients, for both families."""
            at = itertools.product(("pod", "node-1"), IPS.values(), ports)
            said = [asks(testbed[client], (ip, port), "TCP") for client, ip, port in at]
            return [one.rpartition(" ")[2] for one in said]

        write({"port-ranges": f"data={first}-{last}"})
        agent.start_until_ready()
        wanted = ["none", *map(str, (first, MIDDLE, OWN + 10, last)), "none"]
        assert answers(first - 1, first, MIDDLE, OWN, last, last + 1) == wanted * 4
        shown = {one["port"]: one["frontends"] for one in agent.status()["ports"]}["data"]
        assert shown[0]["address"] == f"[{IPS[6]}]:{first}–{last}"
        assert shown[0]["target"] == "listens there"
        agent.stop()
        agent.start_until_ready()
        assert answers(last) == [str(last)] * 4
        write({"port-ranges": f"data={first}-{last}"}, ("late", "TCP", last, LAST))
        wait_for("the port of its own", lambda: answers(last) == [str(LAST)] * 4, hint=agent.log)
        assert answers(first) == [str(first)] * 4
        write({})
        wait_for("the end of the range", lambda: answers(first) == ["none"] * 4, hint=agent.log)
        agent.stop()
        testbed.shell(" ".join(CLEANUP))
        assert testbed.rules() == before
