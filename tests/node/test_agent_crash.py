"""No other program gets the clients of a killed proxy, and a restarted proxy serves them.

    rest         killed while nothing changes
    start        killed while it starts
    change       killed while it applies a change
    hand-over    killed while another process takes over, together with that process

The next process uses the same steering mode or another one; no state of the first one is left.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import Counter

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.clients import Client, ask, refusal
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import CLIENTS, Testbed

pytestmark = [pytest.mark.long, pytest.mark.netns]

DUAL = {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}
WEB = Service("web", "10.96.0.10", more={"clusterIPs": ["10.96.0.10", "fd00:96::10"], **DUAL})
DNS = Service(
    "dns",
    "10.96.0.53",
    53,
    "UDP",
    target=53,
    more={"clusterIPs": ["10.96.0.53", "fd00:96::53"], **DUAL},
)
ADDED = Service("added", "10.96.0.20")
NONE = Service("none", "10.96.0.30", more={"clusterIPs": ["10.96.0.30", "fd00:96::30"], **DUAL})
TCP_FRONTENDS = [(ip, 80) for s in (WEB, NONE) for ip in s.more["clusterIPs"]]
UDP_FRONTENDS = [(ip, 53) for ip in DNS.more["clusterIPs"]]
REFUSE_PORT = 29999
# These slices require IPv6 listeners; no client dials their endpoints.
IPV6_SLICES = "---".join(
    f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: shop, name: {s.name}-6, labels: {{kubernetes.io/service-name: {s.name}}}}}
addressType: IPv6
ports: [{{port: {s.target}, protocol: {s.protocol}}}]
endpoints: [{{addresses: ["fd00:10:244::99"]}}]
"""
    for s in (WEB, DNS)
)


def our_ports(testbed: Testbed) -> set[int]:
    """Return the local ports to which rules lead; with local steering, the Services' ports."""
    if testbed.agent.steering == "local":
        return {80, 53}
    targets = [t for s in ("web", "dns") for t in testbed.agent.frontends(s).values()]
    ports = {int(target.removeprefix("proxy port ")) for target in targets}
    assert len(ports) == len(targets), "each Service port and family needs its own port"
    return {REFUSE_PORT, *ports}


@contextlib.contextmanager
def thief(testbed: Testbed, ports: set[int]):
    """Listen on these ports of all the node's addresses by TCP and UDP, like another program."""
    with contextlib.ExitStack() as stack:
        for ip in ("0.0.0.0", "::"):
            for port in ports:
                tcp = stack.enter_context(testbed["node-1"].tcp(ip))
                udp = stack.enter_context(testbed["node-1"].new_udp(ip))
                for made in (tcp, udp):
                    if ip == "::":
                        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.bind((ip, port))
                tcp.listen()
        yield


# The clients that dial IPv6, too; the laptop has no route to the Services' IPv6 addresses.
IPV6_CLIENTS = ("pod", "node-1")


def refusals(testbed: Testbed) -> dict[tuple[str, str, int], str]:
    """Return each client's result at each frontend; only IPV6_CLIENTS dial IPv6 frontends."""
    said = {}
    for name, client in testbed.clients.items():
        for frontend in TCP_FRONTENDS:
            if ":" not in frontend[0] or name in IPV6_CLIENTS:
                said[name, *frontend] = client.tcp_refusal(frontend)
        for frontend in UDP_FRONTENDS:
            if ":" not in frontend[0] or name in IPV6_CLIENTS:
                said[name, *frontend] = client.udp_refusal(frontend)
    return said


def rules_without_ports(testbed: Testbed) -> Counter[str]:
    """Return the rules, and the routes of ``local``, without proxy ports."""
    text = testbed.rules() + testbed.shell("ip route show table all proto 117")
    # The pattern also matches lists and ranges of ports.
    return Counter(re.sub(r"\b[12]\d{4}\b([,:-]\s*[12]\d{4}\b)*", "PORTS", text).splitlines())


def kill_during(testbed: Testbed, during: str, after_s: float) -> None:
    """Begin an action; ``after_s`` seconds later, kill all of the agent's processes."""
    agent = testbed.agent
    with contextlib.ExitStack() as others:
        match during:
            case "start":
                agent.kill()
                agent.start()
            case "change":
                testbed.agent.manifests.write(ADDED, name="added.yaml")
            case "hand-over":
                # `Agent.kill` kills the children of only one process.
                others.callback(agent.kill)
                others.callback(setattr, agent, "process", agent.process)
                agent.process = None
                agent.flags += ("--take-over",)
                agent.start()
                agent.flags = agent.flags[:-1]
        until = time.monotonic() + after_s
        wait_for("the moment", lambda: time.monotonic() >= until)
        agent.kill()


@pytest.mark.needs("socket", "legacy socket match")
@pytest.mark.parametrize("steering", ["nftables", "iptables", "local", "local-on-a-node"])
@pytest.mark.parametrize(
    ("during", "after_s"),
    [
        ("rest", 0.0),
        ("start", 0.2),
        ("start", 0.4),
        ("change", 0.05),
        ("change", 0.15),
        ("hand-over", 0.3),
        ("hand-over", 0.6),
    ],
)
def test_a_process_on_proxy_ports_gets_no_client_and_the_next_agent_serves_them(
    tmp_path, steering, during, after_s
):
    state = f"--state-dir={tmp_path}/state"
    with Testbed(tmp_path, steering, "--workers=2", state, clients=CLIENTS) as testbed:
        ips = testbed.add_pods("one", tcp=8080, udp=53)
        testbed.agent.manifests.write_text(IPV6_SLICES, name="six.yaml")
        testbed.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips), NONE)
        ports, rules = our_ports(testbed), rules_without_ports(testbed)
        flow = testbed["pod"].udp(DNS.address)
        assert ask(flow) == b"one: hello"
        kill_during(testbed, during, after_s)
        assert set(refusals(testbed).values()) == {"refused"}
        with contextlib.ExitStack() as stack:
            stack.enter_context(thief(testbed, ports))
            assert set(refusals(testbed).values()) == {"refused"}
            assert refusal(flow) == "refused"
            if testbed.agent.steering == "local":
                # A listener on all addresses can't have the port of the proxy's listener.
                stack.close()
            testbed.agent.start_until_ready()
            for name, client in testbed.clients.items():
                assert client.get(WEB.address) == "one", name
                assert client.asks(DNS.address) == "one: hello", name
                assert client.tcp_refusal(NONE.address) == "refused", name
        (testbed.agent.manifests.folder / "added.yaml").unlink(missing_ok=True)
        # For a while, the rules still guard the old ports.
        wait_for("the rules of before", lambda: rules_without_ports(testbed) == rules)


def with_node_port(service: Service, number: int) -> Service:
    port = {"port": service.port, "protocol": service.protocol, "nodePort": number}
    return Service(
        service.name,
        service.ip,
        service.port,
        service.protocol,
        target=service.target,
        more={"type": "NodePort", "ports": [port]},
    )


@pytest.mark.parametrize("steering", ["iptables", "nftables"])
def test_a_process_taking_node_ports_while_no_proxy_runs_gets_no_client(tmp_path, steering):
    with Testbed(tmp_path, steering) as testbed:
        ips = testbed.add_pods("one", tcp=8080, udp=53)
        web, dns, none = (
            with_node_port(s, number) for s, number in ((WEB, 30080), (DNS, 30053), (NONE, 30090))
        )
        testbed.serve(with_endpoints(web, ips), with_endpoints(dns, ips), none)
        testbed.agent.kill()
        with thief(testbed, {30080, 30053, 30090}):
            testbed.agent.start_until_ready()
            node = str(testbed.node.ip)
            for name, client in testbed.clients.items():
                assert client.get((node, 30080)) == "one", name
                assert client.asks((node, 30053)) == "one: hello", name
                assert client.tcp_refusal((node, 30090)) == "refused", name
            # A Service port has one protocol; the other program has all three ports by TCP and UDP.
            assert testbed.agent.log().count("while no proxy was running") == 3


ADDRESSES = {"a": "10.96.0.10", "b": "10.96.0.11", "c": "10.96.0.9"}
# Kernel state that only this steering mode has while it runs.
MARKS = {
    "iptables": r"UPROXY",
    "nftables": r"table inet userspace-proxy \{",
    "local-on-a-node": r"table local proto 117|table inet userspace-proxy/local",
}
PAIRS = [
    pytest.param(first, second, id=f"{first}-then-{second}") for first in MARKS for second in MARKS
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_after_a_change_of_steering_no_client_reaches_another_services_pod(first, second, tmp_path):
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    with Testbed(folders[0], first, clients=("pod", "node-1")) as testbed:
        pods = dict(zip("abc", testbed.add_pods("a", "b", "c", tcp=8080, udp=53), strict=True))
        # The new Service sorts first and another one is removed, so old ports go to other Services.
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
        assert re.search(MARKS[first], testbed.kernel())
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
            assert _udp_answer(sock) == ("b: hello" if n == "b" else "")
        if second != first:
            wait_for(
                "the end of what the first one left",
                lambda: not re.search(MARKS[first], testbed.kernel()),
                hint=lambda: testbed.kernel() + testbed.agent.log(),
            )
        assert testbed.agent.stop() == 0
        left = testbed.kernel()
        assert not [name for name, mark in MARKS.items() if re.search(mark, left)]


def _answer(client: Client, service: Service) -> str:
    """Return the pod that answers; empty if none does."""
    try:
        return client.get(service.address)
    except OSError:
        return ""


def _udp_answer(sock: socket.socket) -> str:
    """Return the answer to a datagram; empty if there is none."""
    try:
        return ask(sock).decode()
    except OSError:
        return ""
