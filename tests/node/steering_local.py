"""What the tests of local steering share."""

from __future__ import annotations

import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import REFUSE, SteeringFacts

RANGES = SteeringFacts(service_cidrs=("10.96.0.0/16", "fd00:96::/112"))
NODE = SteeringFacts(node_addresses=(nodes.NODE_IP, nodes.NODE_IP6))
CANARY = SteeringFacts(proxy_name="canary")
DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)
FRONTENDS = {WEB: 80, WEB_6: 80, DNS: 53, DNS_6: 53, CART: REFUSE}


def our_routes(node: nodes.Net) -> str:
    return node.run("ip route show table local proto 117; ip -6 route show table local proto 117")


def in_force(node: nodes.Net) -> str:
    # Link-local routes come when the kernel is done with its address detection, and it notices
    # later than we that a link is up.
    said = nodes.ruleset(node) + node.run(
        "{ ip route show table all; ip -6 route show table all; } | grep -v -e fe80 -e ff00;"
        "ip rule; ip -6 rule"
    )
    return said.replace(" linkdown", "")
