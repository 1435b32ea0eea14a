"""An active and a standby server behind one Service, while clients connect all the time."""

import time

import pytest

from tests.cluster.waiting import wait_for
from tests.node.load import Load
from tests.node.manifests import Service, with_endpoints
from tests.node.steerings import steerings
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

DB = Service("db", "10.96.0.10")
RATE = 50.0


def slices(active, standby, *, is_active_ready=True):
    """Yield the Service with a slice of either priority."""
    for name, ip, priority in (("active", active, "0"), ("standby", standby, "1")):
        service, item = with_endpoints(DB, [ip]).objects()
        item["metadata"] |= {"name": name}
        item["metadata"]["annotations"] = {"userspace-proxy.io/priority": priority}
        item["endpoints"][0]["conditions"] = {"ready": name == "standby" or is_active_ready}
        yield from (service, item) if name == "active" else (item,)


class Pair:
    """The two servers, and how many connections each has had."""

    def __init__(self, testbed):
        self.testbed = testbed
        self.active, self.standby = (
            str(testbed.sandbox.add_pod(name).ip) for name in ("active", "standby")
        )
        self.server = self.start()
        testbed.pod("standby").serve("standby", tcp=8080)
        self.write()
        testbed.agent.start_until_ready()

    def start(self):
        return self.testbed.pod("active").serve("active", tcp=8080)

    def write(self, **changes):
        self.testbed.agent.manifests.write_objects(slices(self.active, self.standby, **changes))

    def connections(self):
        """Return the counts of the active server and of the standby."""
        (port,) = self.testbed.agent.status()["ports"]
        by_ip = {e["address"].rpartition(":")[0]: e["connections"] for e in port["endpoints"]}
        return by_ip[self.active], by_ip[self.standby]

    def wait_until_served_by(self, which):
        """Wait until one serves ten connections more, and the other none."""
        begin = list(self.connections())

        def is_so():
            now = self.connections()
            if now[1 - which] > begin[1 - which]:
                begin[:] = now
            return now[which] >= begin[which] + 10

        wait_for("the other server to take over", is_so, hint=self.testbed.agent.log)


@pytest.fixture
def pair(steering, tmp_path):
    with Testbed(tmp_path, steering, "--workers=2", clients=["pod"]) as testbed:
        yield Pair(testbed)


@pytest.mark.parametrize("steering", steerings("nftables", "iptables", "local"))
def test_no_request_fails_when_the_active_server_dies_and_traffic_returns_to_it(pair, tmp_path):
    load = Load(pair.testbed["pod"].host, tmp_path / "load.log", DB.address, RATE)
    pair.wait_until_served_by(0)
    before = time.time()
    pair.server.stop()
    dead = time.time()
    pair.wait_until_served_by(1)
    pair.server = pair.start()
    pair.wait_until_served_by(0)
    # A database's controller: the active server isn't ready any more, then it is.
    pair.write(is_active_ready=False)
    pair.wait_until_served_by(1)
    pair.write()
    pair.wait_until_served_by(0)
    outcome = load.stop()
    assert outcome.made > 50
    # A server that is killed may take along the request that it was answering.
    for part in (outcome.until(before - 1), outcome.since(dead)):
        assert not part.failed, f"{part.failed}\n{pair.testbed.agent.log()}"


@pytest.mark.parametrize("steering", ["nftables"])
def test_no_request_fails_when_the_active_server_is_silent(pair, tmp_path):
    load = Load(pair.testbed["pod"].host, tmp_path / "load.log", DB.address, RATE)
    pair.wait_until_served_by(0)
    before = time.time()
    pair.testbed.pod("active").drop_traffic()
    silent = time.time()
    pair.wait_until_served_by(1)
    pair.testbed.pod("active").pass_traffic()
    pair.wait_until_served_by(0)
    outcome = load.stop()
    # What the server was answering when it fell silent is lost, at the latest after a timeout.
    for part in (outcome.until(before - 1), outcome.since(silent)):
        assert not part.failed, f"{part.failed}\n{pair.testbed.agent.log()}"
