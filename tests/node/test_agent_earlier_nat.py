"""A nat chain of another program that takes a ClusterIP before ours: it is named (#12)."""

from __future__ import annotations

import pytest
from agent_harness import House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
CAUSE = "nftables chain ip evil pre of another program (prerouting, priority -150) translates it"


def test_page_and_log_name_a_chain_that_takes_a_service(tmp_path):
    with House(tmp_path, "nftables", clients=("pod",)) as house:
        house.serve(with_endpoints(WEB, house.add_pods("one", tcp=8080)))

        def problem() -> str:
            (port,) = house.agent.status()["ports"]
            return str(port["problem"])

        assert problem() == ""
        house.shell(
            "nft 'add table ip evil; "
            "add chain ip evil pre { type nat hook prerouting priority -150; }; "
            "add rule ip evil pre ip daddr 10.96.0.10 tcp dport 80 redirect to :9'"
        )
        wait_for("the problem", lambda: problem().startswith(CAUSE), hint=house.agent.log)
        house.shell("nft delete table ip evil")
        wait_for("its end", lambda: not problem(), hint=house.agent.log)
        assert house["pod"].get(WEB.address) == "one"
        assert house.agent.log().count(CAUSE) == 1
