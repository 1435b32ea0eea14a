"""A node with IPv6 switched off serves what it can, and names what it can't."""

from __future__ import annotations

from typing import Any

import pytest
from agent_harness import ON_A_NODE, House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
CART = Service("cart", "10.96.0.11")
DUAL = Service(
    "dual",
    "10.96.0.12",
    more={
        "clusterIPs": ["10.96.0.12", "fd00:96::12"],
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
    },
)
SWITCH = "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo {} > $f; done"


@pytest.fixture(params=["local", *ON_A_NODE, "nftables", "iptables"])
def house(request, tmp_path):
    """A node with a pod and without IPv6, whose agent isn't started."""
    with House(tmp_path, request.param) as house:
        house.add_pods("one", tcp=8080)
        house.shell(SWITCH.format(1))
        yield house


def is_served(house: House, address: tuple[str, int]) -> bool:
    with house["pod"].tcp(address[0]) as made:
        made.settimeout(0.3)
        return made.connect_ex(address) == 0


def test_a_start_without_ipv6_serves_all_else_and_so_do_changes(house):
    web, dual, cart = (with_endpoints(s, [house.ip("one")]) for s in (WEB, DUAL, CART))
    house.serve(web, dual)
    assert is_served(house, WEB.address)
    assert is_served(house, DUAL.address)
    house.edit(web, dual, cart)
    wait_for("the new Service", lambda: is_served(house, CART.address), hint=house.agent.log)


def test_what_is_not_served_without_ipv6_has_a_cause(house):
    dual = with_endpoints(DUAL, [house.ip("one")])
    house.serve(dual)

    def ports() -> dict[str, dict[str, Any]]:
        return {port["family"]: port for port in house.agent.status()["ports"]}

    # Of rules it is known after the first repair.
    wait_for("the cause", lambda: ports()["IPv6"]["problem"], hint=house.agent.log)
    found = ports()
    assert found["IPv4"]["problem"] == ""
    assert "IPv6 is switched off on this node" in found["IPv6"]["problem"]
    assert [f["is_reached"] for f in found["IPv6"]["frontends"]] == [False]
    assert house.agent.log().count("frontends cannot be steered") == 1
    house.shell(SWITCH.format(0))

    def is_well() -> bool:
        return not any(port["problem"] for port in house.agent.status()["ports"])

    wait_for("IPv6's frontends", is_well, deadline_s=20, hint=house.agent.log)
    assert house.agent.frontends("dual")["[fd00:96::12]:80"] != "not routed to this node"
