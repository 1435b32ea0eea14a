"""After a restart the node's Services are served from the disk until the source has answered."""

import json

import pytest

from tests.cluster.waiting import wait_for
from tests.node.api_servers import ApiServer
from tests.node.manifests import Service, with_endpoints
from tests.node.steerings import steerings
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
CART = Service("cart", "10.96.0.20")
GONE = Service("gone", "10.96.0.30")


class Site:
    """A node with an agent that reads from an API server and keeps the last state."""

    def __init__(self, testbed, folder):
        self.testbed = testbed
        self.agent = testbed.agent
        self.api = ApiServer(testbed.node, testbed._sockets, folder)
        self.agent.source = f"--master={self.api.url}"
        self.file = folder / "state" / "state.json.gz"

    def endpoint_of(self, service):
        """Return the name of the pod that a client reaches."""
        return self.testbed["pod"].get(service.address)


@pytest.fixture
def site(request, tmp_path):
    flags = (f"--state-dir={tmp_path / 'state'}", "--drain-timeout=0s")
    with Testbed(tmp_path, request.param, *flags, clients=("pod",)) as testbed:
        site = Site(testbed, tmp_path)
        yield site
        site.api.kill()


@pytest.mark.parametrize(
    "site", steerings("nftables", "iptables", "local", "local-on-a-node"), indirect=True
)
@pytest.mark.parametrize("flushed", [False, True], ids=["rules-stay", "rules-are-flushed"])
def test_a_node_serves_after_a_kill_of_everything_while_the_api_server_is_down(site, flushed):
    one, two = site.testbed.add_pods("one", "two", tcp=8080)
    site.api.start(with_endpoints(WEB, [one]), with_endpoints(GONE, [one]))
    site.agent.start_until_ready()
    wait_for("the state on disk", site.file.exists, hint=site.agent.log)

    site.api.kill()
    site.agent.kill()
    if flushed:
        site.testbed.shell("nft flush ruleset; ip route flush table local proto 117")
        if site.agent.steering == "iptables":
            site.testbed.shell("iptables-legacy -t nat -F")
    site.agent.start_until_ready()
    assert site.endpoint_of(WEB) == "one"
    assert site.endpoint_of(GONE) == "one"
    status = site.agent.status()
    assert 0 < status["last_state"]["age_s"] < 120
    assert not status["source"]["is_synced"]
    assert "serving the last state until the source answers" in site.agent.log()
    assert "Serving the last state, which is" in site.agent.read("/")[1]

    site.api.start(with_endpoints(WEB, [two]), with_endpoints(CART, [two]))
    site.agent.wait_until_settled(with_endpoints(CART, [two]), with_endpoints(WEB, [two]))
    assert (site.endpoint_of(WEB), site.endpoint_of(CART)) == ("two", "two")
    assert site.agent.status()["last_state"]["age_s"] is None
    assert "the source has answered, the last state is no longer served" in site.agent.log()


@pytest.mark.parametrize("site", ["iptables"], indirect=True)
def test_a_planned_stop_leaves_the_newest_state(site):
    one, two = site.testbed.add_pods("one", "two", tcp=8080)
    site.api.start(with_endpoints(WEB, [one]))
    site.agent.start_until_ready()
    wait_for("the state on disk", site.file.exists, hint=site.agent.log)
    site.api.kill()
    site.api.start(with_endpoints(WEB, [two]))
    site.agent.wait_until_settled(with_endpoints(WEB, [two]))
    site.api.kill()
    assert site.agent.stop() == 0
    site.agent.start_until_ready()
    assert site.endpoint_of(WEB) == "two"


@pytest.mark.parametrize("site", ["iptables"], indirect=True)
def test_a_state_file_of_another_node_is_ignored_with_one_log_line(site):
    (one,) = site.testbed.add_pods("one", tcp=8080)
    site.api.start(with_endpoints(WEB, [one]))
    site.agent.start_until_ready()
    wait_for("the state on disk", site.file.exists, hint=site.agent.log)
    site.agent.kill()
    site.agent.flags = (*site.agent.flags, "--hostname-override=node-2", "--log-format=json")
    site.agent.log_path.write_text("")
    site.agent.start_until_ready()
    lines = [json.loads(line) for line in site.agent.log().splitlines()]
    (cause,) = [line["cause"] for line in lines if line["message"].startswith("last state ignored")]
    assert cause == f"cannot use {site.file}: its node is 'node-1', and this proxy's is 'node-2'"
