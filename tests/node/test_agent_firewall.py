"""A firewall that drops what is steered here is named by page and log, with what helps."""

import re

import pytest
import steering_nodes as nodes

from tests.cluster.waiting import wait_for
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed
from userspace_proxy.filters.node import find_firewalls
from userspace_proxy.steering.iptables import legacy
from userspace_proxy.steering.kernel_view import read_kernel

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
# As `iptables-nft -P INPUT DROP`; the node can still reach its own pods.
DROP = """
    nft 'add table ip filter'
    nft 'add chain ip filter INPUT { type filter hook input priority filter; policy drop; }'
    nft 'add rule ip filter INPUT iif lo accept'
    nft 'add rule ip filter INPUT ct state established,related accept'"""


# Each is what the tool's policy is; the node can still reach its own pods.
LEGACY_DROP = """
    iptables-legacy -A INPUT -i lo -j ACCEPT
    iptables-legacy -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
    iptables-legacy -P INPUT DROP"""


@pytest.mark.parametrize(
    ("steering", "firewall", "chain"),
    [
        pytest.param("nftables", DROP, "ip filter INPUT", id="nftables"),
        pytest.param("local-on-a-node", DROP, "ip filter INPUT", id="local"),
        pytest.param(
            "local",
            LEGACY_DROP,
            "legacy ip filter INPUT",
            id="local-legacy",
            marks=pytest.mark.needs("legacy tables"),
        ),
    ],
)
def test_a_policy_of_drop_is_reported_with_a_rule_that_helps(tmp_path, steering, firewall, chain):
    with Testbed(tmp_path, steering, clients=("pod",)) as testbed:
        testbed.shell(firewall)
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))

        def found():
            return testbed.agent.status()["firewalls"]

        wait_for("the firewall to be seen", found, hint=testbed.agent.log)
        (named,) = found()
        assert (named["chain"], named["why"]) == (chain, "its policy is drop")
        assert testbed.agent.log().count("policy is drop") == 1
        assert "a firewall may drop packets to Services" in testbed.agent.log()
        assert named["hint"] in re.sub(r"<[^>]*>", "", testbed.agent.read("/")[1])
        testbed.shell(named["hint"])
        assert testbed["pod"].get(WEB.address) == "one"


@pytest.mark.needs("legacy tables")
def test_nftables_is_read_where_the_programs_of_legacy_tables_are_missing(tmp_path, monkeypatch):
    nodes.need_namespaces()
    node = nodes.Net("node")
    node.run(f"{DROP}; iptables-legacy -P INPUT DROP")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(legacy, "MORE_PATHS", ())
    with node:
        kernel = read_kernel("input")
        found = find_firewalls(kernel.nft, kernel.legacy_filter, "nftables", (17000, 29999))
    assert [firewall.chain for firewall in found] == ["ip filter INPUT"]
    node.close()
