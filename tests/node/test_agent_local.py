"""Local steering as a node's own: what daemons of the node, clients and others notice of it."""

from __future__ import annotations

import contextlib
import socket

import pytest
from agent_harness import CLEANUP, CLIENTS, ON_A_NODE, House, Service, wait_for, with_endpoints

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
DAEMON = 2222


@pytest.fixture(scope="module", params=["local", *ON_A_NODE])
def house(request, tmp_path_factory):
    """A node with daemons on all addresses, and an agent that steers by routes or rules."""
    folder = tmp_path_factory.mktemp("agent")
    with House(folder, request.param, clients=CLIENTS) as house, contextlib.ExitStack() as daemons:
        for made in daemons_of(house):
            daemons.enter_context(made)
        ips = house.add_pods("one", tcp=8080, udp=53)
        house.before = kernel_without_daemons(house)
        house.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips), NOBODY)
        yield house


def daemons_of(house):
    for ip in ("0.0.0.0", "::"):
        made = house["node-1"].tcp(ip)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ip == "::":
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((ip, DAEMON))
        made.listen()
        yield made


def kernel_without_daemons(house) -> list[str]:
    """Return the lines of ``kernel``, but for our daemons, which have clients in their queues."""
    return [line for line in house.kernel().splitlines() if f":{DAEMON} " not in line]


def test_services_are_served_to_everybody(house):
    for name, client in house.clients.items():
        assert client.get(WEB.address) == "one", name
        assert client.asks(DNS.address) == "one: hello", name


def test_daemons_of_the_node_are_not_at_service_addresses(house):
    reached = [
        (name, service.name)
        for name, client in house.clients.items()
        for service in (WEB, DNS, NOBODY)
        if is_reached(client, (service.address[0], DAEMON))
    ]
    assert reached == []
    assert is_reached(house["node-1"], (str(house.node.ip), DAEMON))


def is_reached(client, address) -> bool:
    with client.tcp(address[0]) as made:
        made.settimeout(0.3)
        return made.connect_ex(address) == 0


def test_a_flush_is_repaired(house):
    house.shell(
        "ip route flush table local proto 117; ip rule flush protocol 117;"
        "nft delete table inet userspace-proxy/local || true"
    )
    client = house["laptop"]
    wait_for("the repair", lambda: is_reached(client, WEB.address), hint=house.agent.log)
    assert not is_reached(client, (WEB.address[0], DAEMON))


def test_a_crash_and_a_restart_change_nothing_and_cleanup_leaves_nothing(house):
    running = kernel_without_daemons(house)
    house.agent.kill()
    house.agent.start_until_ready()
    assert kernel_without_daemons(house) == running
    for name, client in house.clients.items():
        assert client.get(WEB.address) == "one", name
        assert client.asks(DNS.address) == "one: hello", name
    house.agent.kill()
    assert house.agent.run(command=CLEANUP).returncode == 0
    assert kernel_without_daemons(house) == house.before
