"""A conntrack table without room is shown while it lasts."""

from __future__ import annotations

import pytest
from agent_harness import House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")


def fill(house: House) -> None:
    """Have the node track as many associations as there is room for; each lives for 30 s."""
    limit = int(house.shell("cat /proc/sys/net/netfilter/nf_conntrack_max"))
    with house["node-1"].new_udp() as made:
        for number in range(limit + 100):
            made.sendto(b"", (f"127.1.{number >> 14 & 255}.1", 10_000 + (number & 0x3FFF)))


def test_a_full_table_is_on_the_page_in_the_metrics_and_in_the_log(tmp_path):
    with House(tmp_path, "nftables") as house:
        house.serve(with_endpoints(WEB, house.add_pods("one", tcp=8080)))
        assert not house.agent.status()["tracking"]["is_full"]
        fill(house)
        wait_for("the report", lambda: house.agent.status()["tracking"]["is_full"])
        assert "connection tracking is full" in house.agent.log()
        assert "\nuserspace_proxy_conntrack_full 1.0\n" in house.agent.read("/metrics")[1]
