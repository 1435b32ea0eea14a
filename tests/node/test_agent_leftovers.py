"""Two steerings after one another on one node: nothing is left of the first, killed or not."""

from __future__ import annotations

import re

import agent_harness as harness
import pytest
from agent_harness import House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
# What each has in the kernel while it runs, and nobody else.
MARKS = {
    "iptables": r"UPROXY",
    "nftables": r"table inet userspace-proxy \{",
    "local-on-a-node": r"table local proto 117|table inet userspace-proxy/local",
    "local-by-rules": r"lookup 1962934272",
}
PAIRS = [
    pytest.param(first, second, id=f"{first}-then-{second}")
    for first in MARKS
    for second in MARKS
    if first != second
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_killed_agents_steering_is_replaced_by_another(first, second, tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with House(folders[0], first, clients=("pod", "node-1")) as house:
        ips = house.add_pods("one", tcp=8080, udp=53)
        services = [*(with_endpoints(service, ips) for service in (WEB, DNS)), NOBODY]
        house.serve(*services)
        socks = {name: client.udp(DNS.address) for name, client in house.clients.items()}
        assert {harness.ask(sock) for sock in socks.values()} == {b"one: hello"}
        assert re.search(MARKS[first], house.kernel())
        house.agent.kill()
        house.agent = harness.Agent(house.node, house["node-1"], folders[1], second)
        house.serve(*services)
        wait_for(
            "the end of what the first one left",
            lambda: not re.search(MARKS[first], house.kernel()),
            hint=lambda: house.kernel() + house.agent.log(),
        )
        for name, client in house.clients.items():
            assert client.get(WEB.address) == "one"
            assert client.tcp_refusal(NOBODY.address) != "accepted"
            if (first, second) != ("nftables", "local-by-rules"):
                # Without libnftables nobody knows which associations were the table's.
                assert harness.ask(socks[name]) == b"one: hello"
        assert house.agent.stop() == 0
        left = house.kernel()
        assert not [name for name, mark in MARKS.items() if re.search(mark, left)]
