"""Clients, servers, TCP segments and frontends for tests of steering with real packets. Plain
servers on the proxy ports replace the proxy.
"""

from __future__ import annotations

import errno
import socket
import struct

import steering_nodes as nodes
from steering_contract import CART, DNS, WEB, WEB_6

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import REFUSE, SteeringFacts

FACTS = SteeringFacts(refuse_port=35999, proxy_ports=(36000, 36999))
DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)
CLIENT_PORT = 41000
# Source: RFC 9293, the control bits.
FIN, SYN, RST, ACK = 1, 2, 4, 16
REFUSED_UDP = Frontend("10.96.0.11", 53, Protocol.UDP)
TARGETS = {WEB: 36001, DNS: 36002, CART: REFUSE, REFUSED_UDP: REFUSE}


def connected(net: nodes.Net, frontend: Frontend) -> socket.socket:
    client = net.udp(socket.AF_INET6 if ":" in frontend.ip else socket.AF_INET)
    client.connect((frontend.ip, frontend.port))
    return client


def net_of(cluster: nodes.Cluster, name: str) -> nodes.Net:
    return {"pod": lambda: cluster.pod, "node": lambda: cluster.node}.get(
        name, cluster.add_bare_pod
    )()


def dial_in_vain(net: nodes.Net, frontend: Frontend) -> None:
    """Send a SYN from CLIENT_PORT to an address that doesn't answer."""
    with dialler(net, frontend) as client:
        client.setblocking(False)
        assert client.connect_ex((frontend.ip, frontend.port)) == errno.EINPROGRESS


def dial_again(net: nodes.Net, frontend: Frontend) -> socket.socket:
    client = dialler(net, frontend)
    client.connect((frontend.ip, frontend.port))
    return client


def dialler(net: nodes.Net, frontend: Frontend) -> socket.socket:
    client = net.tcp(socket.AF_INET6 if ":" in frontend.ip else socket.AF_INET)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("", CLIENT_PORT))
    return client


def send_segment(net: nodes.Net, to: tuple[str, int], flags: int) -> None:
    """Send a TCP segment without data from the pod, with any flags."""
    head = struct.pack(">HHIIBBHHH", CLIENT_PORT, to[1], 1, 1, 5 << 4, flags, 1024, 0, 0)
    pseudo = socket.inet_aton(nodes.POD_IP) + socket.inet_aton(to[0]) + struct.pack(">HH", 6, 20)
    total = sum(struct.unpack(">16H", pseudo + head))
    checksum = ~(total % 0xFFFF) & 0xFFFF
    with net, socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sender:
        sender.sendto(head[:16] + struct.pack(">H", checksum) + head[18:], to)


TREE = {Frontend(f"10.96.{i >> 4}.{i & 15}", 80, Protocol.TCP): 36000 + i for i in range(100)}
TREE_6 = {Frontend(f"fd00:96::{i:x}", 80, Protocol.TCP): 36000 + i for i in range(1, 100)}
MANY = {
    Frontend(f"10.96.{i >> 8}.{i & 255}", 80, Protocol.TCP): 36000 + i % 900
    for i in range(0, 1 << 16, 40)
}


RANGES = SteeringFacts(service_cidrs=("10.96.0.0/16", "fd00:96::/112"))
NODE = SteeringFacts(node_addresses=(nodes.NODE_IP, nodes.NODE_IP6))
CANARY = SteeringFacts(proxy_name="canary")
FRONTENDS = {WEB: 80, WEB_6: 80, DNS: 53, DNS_6: 53, CART: REFUSE}


def our_routes(node: nodes.Net) -> str:
    return node.run("ip route show table local proto 117; ip -6 route show table local proto 117")


def in_force(node: nodes.Net) -> str:
    # Leave out link-local routes, which appear only after duplicate address detection, and the
    # linkdown flag, which the kernel clears some time after a link is up.
    said = nodes.ruleset(node) + node.run(
        "{ ip route show table all; ip -6 route show table all; } | grep -v -e fe80 -e ff00;"
        "ip rule; ip -6 rule"
    )
    return said.replace(" linkdown", "")
