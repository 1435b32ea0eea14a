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


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A node that serves by iptables."""
    with House(tmp_path_factory.mktemp("agent"), "iptables") as house:
        ips = house.add_pods("one", tcp=8080, udp=53)
        house.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips))
        yield house


def rules(house):
    """Return the node's rules in no order: those of one chain of ours exclude each other."""
    return sorted(house.rules().splitlines())


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
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
    house.shell("iptables-legacy -t nat -A PREROUTING -s 10.9.9.0/24 -j RETURN")
    before = rules(house)
    house.shell("iptables-legacy -t nat -D PREROUTING 1")
    wait_for("the repair", lambda: rules(house) == before, deadline_s=REPAIR_S)


def test_a_udp_client_of_the_flush_is_served_after_it(house):
    """What it sends meanwhile makes an association that leads past us."""
    house.shell("iptables-legacy -t nat -F UPROXY-PRE")
    sock = house["pod"].udp(DNS.address)
    sock.settimeout(0.1)

    def is_answered():
        try:
            return harness.ask(sock) == b"one: hello"
        except OSError:
            return False

    wait_for("an answer", is_answered, deadline_s=REPAIR_S)
