"""A firewall that drops what is steered here is named by page and log, with what helps."""

from __future__ import annotations

import re

import pytest
from agent_harness import House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
# As `iptables-nft -P INPUT DROP`; the node speaks to its own pods all the same.
DROP = """
    nft 'add table ip filter'
    nft 'add chain ip filter INPUT { type filter hook input priority filter; policy drop; }'
    nft 'add rule ip filter INPUT iif lo accept'
    nft 'add rule ip filter INPUT ct state established,related accept'"""


def test_a_policy_of_drop_is_named_and_the_rule_that_is_named_helps(tmp_path):
    with House(tmp_path, "nftables", clients=("pod",)) as house:
        house.shell(DROP)
        house.serve(with_endpoints(WEB, house.add_pods("one", tcp=8080)))

        def found():
            return house.agent.status()["firewalls"]

        wait_for("the firewall to be seen", found, hint=house.agent.log)
        (firewall,) = found()
        assert (firewall["chain"], firewall["why"]) == ("ip filter INPUT", "its policy is drop")
        assert "a firewall may drop packets to Services" in house.agent.log()
        assert firewall["way_out"] in re.sub(r"<[^>]*>", "", house.agent.read("/")[1])
        house.shell(f"nft insert rule {firewall['way_out'].removeprefix('nft insert rule ')}")
        assert house["pod"].get(WEB.address) == "one"
