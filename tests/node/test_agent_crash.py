"""After a crash rules and routes stay; no other process gets what they bring to our ports."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.node.clients import refusal
from tests.node.manifests import Service, with_endpoints
from tests.node.steerings import steerings
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
NONE = Service("none", "10.96.0.30", more={"clusterIPs": ["10.96.0.30", "fd00:96::30"], **DUAL})
TCP_FRONTENDS = [(ip, 80) for s in (WEB, NONE) for ip in s.more["clusterIPs"]]
UDP_FRONTENDS = [(ip, 53) for ip in DNS.more["clusterIPs"]]
REFUSE_PORT = 29999
# So that IPv6 has listeners as well; nothing dials these endpoints.
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
STEERINGS = steerings("nftables", "iptables", "local", "local-on-a-node")


@pytest.fixture(params=STEERINGS)
def testbed(request, tmp_path):
    """A node whose agent serves."""
    with Testbed(tmp_path, request.param, clients=CLIENTS) as testbed:
        ips = testbed.add_pods("one", tcp=8080, udp=53)
        testbed.agent.manifests.write_text(IPV6_SLICES, name="six.yaml")
        testbed.serve(with_endpoints(WEB, ips), with_endpoints(DNS, ips), NONE)
        yield testbed


def our_ports(testbed: Testbed) -> set[int]:
    """Return the local ports that rules of the agent lead to; without rules those of Services."""
    if testbed.agent.steering == "local":
        return {80, 53}
    targets = [t for s in ("web", "dns") for t in testbed.agent.frontends(s).values()]
    ports = {int(target.removeprefix("proxy port ")) for target in targets}
    assert len(ports) == len(targets), "one a Service port and family"
    return {REFUSE_PORT, *ports}


@contextlib.contextmanager
def thief(testbed: Testbed, ports: set[int]):
    """Have a process of the node without any right listen on some ports, at all addresses."""
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


# The other clients have no IPv6.
IPV6_CLIENTS = ("pod", "node-1")


def refusals(testbed: Testbed) -> dict[tuple[str, str, int], str]:
    """Return how dials of all clients to all frontends end."""
    said = {}
    for name, client in testbed.clients.items():
        for frontend in TCP_FRONTENDS:
            if ":" not in frontend[0] or name in IPV6_CLIENTS:
                said[name, *frontend] = client.tcp_refusal(frontend)
        for frontend in UDP_FRONTENDS:
            if ":" not in frontend[0] or name in IPV6_CLIENTS:
                said[name, *frontend] = client.udp_refusal(frontend)
    return said


@pytest.mark.needs("socket", "legacy socket match")
def test_a_process_that_binds_proxy_ports_after_a_crash_gets_nothing(testbed):
    ports = our_ports(testbed)
    flow = testbed["pod"].udp(DNS.address)
    flow.send(b"hello")
    assert flow.recv(99) == b"one: hello"
    testbed.agent.kill()
    assert set(refusals(testbed).values()) == {"refused"}
    with thief(testbed, ports):
        assert set(refusals(testbed).values()) == {"refused"}
        assert refusal(flow) == "refused"
    testbed.agent.start_until_ready()
    for name, client in testbed.clients.items():
        assert client.get(WEB.address) == "one", name
        assert client.asks(DNS.address) == "one: hello", name


# With local steering a listener of ours and one on all addresses can't have the same port.
@pytest.mark.parametrize("testbed", steerings("nftables", "iptables"), indirect=True)
def test_a_process_that_stays_on_proxy_ports_does_not_stop_the_service(testbed):
    ports = our_ports(testbed)
    testbed.agent.kill()
    with thief(testbed, ports):
        testbed.agent.start_until_ready()
        for name, client in testbed.clients.items():
            assert client.get(WEB.address) == "one", name
            assert client.asks(DNS.address) == "one: hello", name
            assert client.tcp_refusal(NONE.address) == "refused", name


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
def test_a_process_that_takes_node_ports_while_no_proxy_runs_gets_no_client(tmp_path, steering):
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
            # One each of TCP or UDP; the thief has both of all three.
            assert testbed.agent.log().count("another process took node port") == 3
