"""Firewalls on a node: the commands that ``check`` suggests make Services work."""

from __future__ import annotations

import json
import sys

import pytest

from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = [pytest.mark.long, pytest.mark.netns, pytest.mark.needs("legacy tables")]

WEB = Service("web", "10.96.0.10")
CLIENTS = ("pod", "node-1", "laptop")
# The policy drops input; loopback may be accepted, as in most rulesets.
LOOPBACK = "-A INPUT -i lo -j ACCEPT"
OPEN = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
STEERED = {
    "nftables": "ct status dnat accept",
    "iptables": "ct status dnat accept",
    "local": "socket transparent 1 accept",
}


@pytest.fixture(scope="module", params=steerings(*STEERED))
def testbed(request, tmp_path_factory):
    """A node that serves before a firewall is added."""
    with Testbed(tmp_path_factory.mktemp("agent"), request.param, clients=CLIENTS) as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        yield testbed


@pytest.fixture(autouse=True)
def without_firewalls(testbed):
    yield
    testbed.shell(
        "nft delete table ip filter 2>/dev/null || true; iptables-legacy -P INPUT ACCEPT;"
        "for rule in '-i lo' '-m conntrack --ctstate RELATED,ESTABLISHED' "
        "'-m conntrack --ctstate ESTABLISHED,RELATED' '-m conntrack --ctstate DNAT' "
        "'-m socket --transparent'; do iptables-legacy -D INPUT $rule -j ACCEPT 2>/dev/null "
        "|| true; done"
    )


def ways_out(testbed) -> list[str]:
    """Return the remedies of ``check`` against firewalls that drop."""
    done = testbed.agent.run(
        command=[
            *(sys.executable, "-m", "userspace_proxy", "check", "-o", "json"),
            *(testbed.agent.source, f"--steering={testbed.agent.steering}"),
        ]
    )
    found = json.loads(done.stdout)["findings"]
    return [f["hint"] for f in found if f["topic"] == "firewall" and f["mark"] == "error"]


@pytest.mark.parametrize("tool", ["iptables-nft", "iptables-legacy"])
@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([], id="bare-policy"),
        pytest.param([LOOPBACK], id="loopback"),
        pytest.param([LOOPBACK, OPEN], id="open-connections"),
    ],
)
def test_the_suggested_commands_open_the_firewall(testbed, tool, rules):
    # The proxy's legacy chains accept steered packets, so only replies must be accepted.
    drops_nothing = (testbed.agent.steering, tool) == (
        "iptables",
        "iptables-legacy",
    ) and OPEN in rules
    testbed.shell(f"{tool} -P INPUT DROP; " + "; ".join(f"{tool} {rule}" for rule in rules))
    commands = ways_out(testbed)
    assert bool(commands) != drops_nothing
    testbed.shell("; ".join(commands))
    assert ways_out(testbed) == []
    for name, client in testbed.clients.items():
        assert client.get(WEB.address) == "one", name


def test_a_rule_admitting_only_clients_is_insufficient(testbed):
    rule = STEERED[testbed.agent.steering]
    testbed.shell(f"iptables-nft -P INPUT DROP; nft insert rule ip filter INPUT {rule}")
    assert ways_out(testbed) == [
        "nft insert rule ip filter INPUT ct state established,related accept"
    ]
    testbed.shell(ways_out(testbed)[0])
    assert testbed["laptop"].get(WEB.address) == "one"
