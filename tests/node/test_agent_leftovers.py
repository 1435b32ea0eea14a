"""Two steerings after one another on one node: nothing is left of the first, killed or not."""

from __future__ import annotations

import re
import socket

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Client, ask
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

WEB = Service("web", "10.96.0.10")
DNS = Service("dns", "10.96.0.53", 53, "UDP", target=53)
NOBODY = Service("nobody", "10.96.0.30")
ADDRESSES = {"a": "10.96.0.10", "b": "10.96.0.11", "c": "10.96.0.9"}
# What each has in the kernel while it runs, and nobody else.
MARKS = {
    "iptables": r"UPROXY",
    "nftables": r"table inet userspace-proxy \{",
    "local-on-a-node": r"table local proto 117|table inet userspace-proxy/local",
}
ALL_PAIRS = [
    pytest.param(first, second, id=f"{first}-then-{second}") for first in MARKS for second in MARKS
]
PAIRS = [pair for pair in ALL_PAIRS if pair.values[0] != pair.values[1]]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_killed_agents_steering_is_replaced_by_another(first, second, tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with Testbed(folders[0], first, clients=("pod", "node-1")) as testbed:
        ips = testbed.add_pods("one", tcp=8080, udp=53)
        services = [*(with_endpoints(service, ips) for service in (WEB, DNS)), NOBODY]
        testbed.serve(*services)
        socks = {name: client.udp(DNS.address) for name, client in testbed.clients.items()}
        assert {ask(sock) for sock in socks.values()} == {b"one: hello"}
        assert re.search(MARKS[first], testbed.kernel())
        testbed.agent.kill()
        testbed.agent = Agent(testbed.node, testbed["node-1"], folders[1], second)
        testbed.serve(*services)
        wait_for(
            "the end of what the first one left",
            lambda: not re.search(MARKS[first], testbed.kernel()),
            hint=lambda: testbed.kernel() + testbed.agent.log(),
        )
        for name, client in testbed.clients.items():
            assert client.get(WEB.address) == "one"
            assert client.tcp_refusal(NOBODY.address) != "accepted"
            assert ask(socks[name]) == b"one: hello"
        assert testbed.agent.stop() == 0
        left = testbed.kernel()
        assert not [name for name, mark in MARKS.items() if re.search(mark, left)]


@pytest.mark.parametrize(("first", "second"), ALL_PAIRS)
def test_after_a_kill_no_client_reaches_another_services_pod(first, second, tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with Testbed(folders[0], first, clients=("pod", "node-1")) as testbed:
        pods = dict(zip("abc", testbed.add_pods("a", "b", "c", tcp=8080, udp=53), strict=True))
        # The new one comes first in any order, and one is gone: the old ports go to others.
        web = {n: Service(n, ip, endpoints=[pods[n]]) for n, ip in ADDRESSES.items()}
        dns = {
            n: Service(f"{n}-dns", ip, 53, "UDP", endpoints=[pods[n]], target=53)
            for n, ip in ADDRESSES.items()
        }
        testbed.serve(web["a"], dns["a"], web["b"], dns["b"])
        socks = {
            (n, client.name): client.udp(dns[n].address)
            for client in testbed.clients.values()
            for n in "ab"
        }
        for (n, _), sock in socks.items():
            assert ask(sock) == f"{n}: hello".encode()
        testbed.agent.kill()
        testbed.agent = Agent(testbed.node, testbed["node-1"], folders[1], second)
        testbed.agent.manifests.write(web["b"], dns["b"], web["c"], dns["c"])
        testbed.agent.start()
        wrong = []
        is_ready = False
        while not is_ready:
            is_ready = testbed.agent.is_healthy()
            for client in testbed.clients.values():
                for n, service in web.items():
                    answer = _answer(client, service)
                    if answer not in ("", n) or (is_ready and n == "a" and answer):
                        wrong.append((client.name, n, answer))
        assert not wrong
        for client in testbed.clients.values():
            assert [client.get(web[n].address) for n in "bc"] == ["b", "c"]
            assert client.asks(dns["c"].address) == "c: hello"
        for (n, _), sock in socks.items():
            sock.settimeout(0.3)
            assert _told(sock) == ("b: hello" if n == "b" else "")


def _answer(client: Client, service: Service) -> str:
    """Return which pod answers; empty where none does."""
    try:
        return client.get(service.address)
    except OSError:
        return ""


def _told(sock: socket.socket) -> str:
    """Return what a datagram is answered by; empty where it isn't."""
    try:
        return ask(sock).decode()
    except OSError:
        return ""
