"""Somebody breaks our rules while the agent runs: they are put right, and theirs are left alone."""

from __future__ import annotations

import agent_harness as harness
import pytest
from agent_harness import House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
# The agent looks each second; what it doesn't do then, it doesn't do.
REPAIR_S = 5.0
DAMAGES = {
    "all-nat-rules": "iptables-legacy -t nat -F",
    "all-nat-chains": "iptables-legacy -t nat -F; iptables-legacy -t nat -X",
    "all-filter-chains": "iptables-legacy -F; iptables-legacy -X",
    "one-chain": "iptables-legacy -t nat -F UPROXY-PRE",
    "one-rule": "iptables-legacy -t nat -D UPROXY-OUT 1",
    "one-jump": "iptables-legacy -D INPUT 1",
}


NFT_DAMAGES = {
    "nft-everything": "nft flush ruleset",
    "nft-table": "nft delete table inet userspace-proxy",
    "nft-all-rules": "nft flush table inet userspace-proxy",
    "nft-one-chain": "nft flush chain inet userspace-proxy prerouting",
    "nft-all-elements": "nft flush map inet userspace-proxy frontends4",
    "nft-one-element": "nft delete element inet userspace-proxy frontends4"
    " '{ 10.96.0.53 . udp . 53 }'",
    "nft-a-rule-more": "nft insert rule inet userspace-proxy output return",
}
STEERINGS = {"iptables": DAMAGES, "nftables": NFT_DAMAGES}
FLUSH = {
    "iptables": "iptables-legacy -t nat -F UPROXY-PRE",
    "nftables": "nft flush chain inet userspace-proxy prerouting",
}
FOREIGN = {
    "iptables": "iptables-legacy -t nat -A PREROUTING -s 10.9.9.0/24 -j RETURN",
    "nftables": "nft add table ip foreign; nft add chain ip foreign other",
}


@pytest.fixture(scope="module", params=STEERINGS)
def house(request, tmp_path_factory):
    """A node that serves by rules."""
    with House(tmp_path_factory.mktemp("agent"), request.param) as house:
        house.steering = request.param
        ips = house.add_pods("one", tcp=8080, udp=53)
        house.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips))
        yield house


def rules(house):
    """Return the node's rules in no order: those of one chain of ours exclude each other."""
    return sorted(house.rules().splitlines())


@pytest.mark.parametrize(
    ("house", "damage"),
    [
        pytest.param(steering, damage, id=name)
        for steering, damages in STEERINGS.items()
        for name, damage in damages.items()
    ],
    indirect=["house"],
)
def test_damaged_rules_are_repaired_and_everybody_is_served_again(house, damage):
    before = rules(house)
    sock = house["pod"].udp(DNS.address)
    assert harness.ask(sock) == b"one: hello"
    house.shell(damage)
    assert rules(house) != before
    wait_for("the repair", lambda: rules(house) == before, deadline_s=REPAIR_S)
    assert {client.get(WEB.address) for client in house.clients.values()} == {"one"}
    assert harness.ask(sock) == b"one: hello"


def test_a_repair_leaves_the_rules_of_others(house):
    house.shell(FOREIGN[house.steering])
    before = rules(house)
    house.shell(FLUSH[house.steering])
    wait_for("the repair", lambda: rules(house) == before, deadline_s=REPAIR_S)


def test_a_udp_client_of_the_flush_is_served_after_it(house):
    """What it sends meanwhile makes an association that leads past us."""
    house.shell(FLUSH[house.steering])
    sock = house["pod"].udp(DNS.address)
    sock.settimeout(0.1)

    def is_answered():
        try:
            return harness.ask(sock) == b"one: hello"
        except OSError:
            return False

    wait_for("an answer", is_answered, deadline_s=REPAIR_S)
