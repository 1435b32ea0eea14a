"""Clients and endpoints on one bridge: where the kernel allows it endpoints see the clients."""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import re
import select
import socket
import subprocess
import sys

import pytest
from test_agent_client_addresses import (
    CLUSTER_IPS,
    PORT,
    PROTOCOLS,
    TARGET,
    VERSIONS,
    Endpoint,
    accept_who_speaks,
    addresses,
    objects,
    talks,
)

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP
from tests.node.testbed import Testbed
from userspace_proxy.policy.locality import FIRST_PORT, LAST_PORT

pytestmark = pytest.mark.netns

MAC = "06:75:70:72:6f:78"
CHECK = (sys.executable, "-m", "userspace_proxy", "check")
SYSCTLS = {4: "net.bridge.bridge-nf-call-iptables", 6: "net.bridge.bridge-nf-call-ip6tables"}
ON = f"sysctl -qw {SYSCTLS[4]}=1 {SYSCTLS[6]}=1"
OFF = f"sysctl -qw {SYSCTLS[4]}=0 {SYSCTLS[6]}=0"


class Bridge:
    """A testbed with a client and an endpoint on the bridge of its node."""

    def __init__(self, folder, *clients, steering="nftables"):
        flags = ("--workers=1", "--v=3")
        self.testbed = Testbed(folder, steering, *flags, clients=("bridge-pod", *clients))
        self.endpoint = Endpoint(self.testbed.sandbox.add_pod("bridged", "bridge"))

    def start(self, *services):
        services = services or [objects("bridged", 10, (self.endpoint, "node-1"))]
        documents = [json.dumps(one) for service in services for one in service]
        self.testbed.agent.manifests.write_text("\n---\n".join(documents))
        self.testbed.agent.start_until_ready()

    def seen(self, version=4, protocol="TCP", client="bridge-pod"):
        """Return whose address the endpoint sees: ``client`` or ``node``."""
        address = (CLUSTER_IPS[version].format(10), PORT)
        ip, _ = self.endpoint.saw(protocol, version, self.testbed[client], address)
        host = self.testbed[client].host
        if ip == str(host.ip if version == 4 else host.ip6):
            return "client"
        assert ip in addresses(self.testbed.node)
        return "node"

    def wait_for_obstacles(self, *expected):
        """Wait until the page reports these bridges and families, and no others."""

        def reported():
            shown = self.testbed.agent.status()["client_address"]["bridges"]
            return sorted((one["name"], one["family"]) for one in shown) == sorted(expected)

        wait_for(f"the obstacles {expected}", reported, hint=self.testbed.agent.log)

    def close(self):
        self.endpoint.close()
        self.testbed.close()


@pytest.fixture
def bridge(tmp_path):
    with contextlib.closing(Bridge(tmp_path)) as bridge:
        yield bridge


def test_where_packets_on_bridges_are_not_filtered_it_is_reported_and_followed(bridge):
    bridge.testbed.shell(OFF)
    bridge.start()
    assert [bridge.seen(version) for version in VERSIONS] == ["node", "node"]
    bridge.wait_for_obstacles(("cni0", "IPv4"), ("cni0", "IPv6"))
    page = html.unescape(bridge.testbed.agent.read("/")[1])
    assert f"{SYSCTLS[4]} is 0" in page
    assert f"sysctl -w {SYSCTLS[4]}=1" in page
    checked = bridge.testbed.agent.run(command=CHECK).stdout
    assert f"IPv6 clients on the same bridge: {SYSCTLS[6]} is 0" in checked
    # Switched on and off while it runs: no sysctl announces it.
    bridge.testbed.shell(f"sysctl -qw {SYSCTLS[4]}=1")
    bridge.wait_for_obstacles(("cni0", "IPv6"))
    wait_for("the client's address", lambda: bridge.seen(4) == "client")
    assert bridge.seen(6) == "node"
    bridge.testbed.shell(OFF)
    bridge.wait_for_obstacles(("cni0", "IPv4"), ("cni0", "IPv6"))
    for protocol in PROTOCOLS:
        assert bridge.seen(4, protocol) == "node"
    # For this bridge alone.
    bridge.testbed.shell("ip link set cni0 type bridge nf_call_iptables 1 nf_call_ip6tables 1")
    bridge.wait_for_obstacles()
    for version in VERSIONS:
        wait_for("the client's address", lambda v=version: bridge.seen(v) == "client")
    assert "IPv4 clients on the same bridge" not in bridge.testbed.agent.run(command=CHECK).stdout


def test_pods_on_isolated_ports_see_the_nodes_address(bridge):
    """Neither could resolve the other's address."""
    for pod in ("bridge-pod", "bridged"):
        port = bridge.testbed.pod(pod).host_interface
        bridge.testbed.shell(f"ip link set {port} type bridge_slave isolated on")
    bridge.start()
    bridge.wait_for_obstacles(("cni0", "IPv4"), ("cni0", "IPv6"))
    assert bridge.seen() == "node"
    assert "isolated" in bridge.testbed.agent.status()["client_address"]["bridges"][0]["cause"]


def test_a_bridge_may_change_its_mac_and_connections_go_on(bridge):
    bridge.start()
    wait_for("the client's address", lambda: bridge.seen() == "client")
    dialled = bridge.testbed["bridge-pod"].dial((CLUSTER_IPS[4].format(10), PORT))
    dialled.send(b"first")
    accepted, _ = accept_who_speaks(bridge.endpoint.servers["TCP", 4])
    with accepted:
        bridge.testbed.shell("ip link set cni0 address 02:00:00:00:00:77")
        assert talks(dialled, accepted)
    assert bridge.seen() == "client"


@pytest.mark.parametrize("version", VERSIONS)
def test_refusals_and_fragments_come_back_too(bridge, version):
    """By ICMP, by RST, and a datagram of 9,000 bytes in pieces."""
    other = Endpoint(bridge.testbed.sandbox.add_pod("refusing", "bridge"))
    for protocol in PROTOCOLS:
        other.servers[protocol, version].close()
    both = [(bridge.endpoint, "node-1"), (other, "node-1")]
    bridge.start(objects("bridged", 10, *both))
    wait_for("the client's address", lambda: bridge.seen(version) == "client")
    address = (CLUSTER_IPS[version].format(10), PORT)
    server = bridge.endpoint.servers["UDP", version]
    for _ in range(2):
        # Every second flow begins at the pod that refuses, and goes on at once.
        asking = bridge.testbed["bridge-pod"].udp(address)
        asking.send(b"question")
        _, peer = server.recvfrom(100)
        server.sendto(bytes(9000), peer)
        assert len(asking.recv(65535)) == 9000
        assert bridge.seen(version) == "client"
    failures = {
        (port["protocol"], endpoint["address"]): endpoint["failures"]
        for port in bridge.testbed.agent.status()["ports"]
        for endpoint in port["endpoints"]
    }
    at = f"[{other.ip(6)}]:{TARGET}" if version == 6 else f"{other.ip(4)}:{TARGET}"
    assert all(failures[protocol, at] for protocol in PROTOCOLS)
    other.close()


def entries(testbed):
    """Return the bridges that take our MAC for their own, or the ports that they learned it by."""
    listed = testbed.shell("bridge fdb show").splitlines()
    return {line.split()[2] for line in listed if line.startswith(MAC)}


def test_an_entry_that_was_deleted_comes_back_and_one_of_a_new_bridge_is_added(bridge):
    bridge.start()
    wait_for("the entry", lambda: entries(bridge.testbed) == {"cni0"})
    bridge.testbed.shell(f"bridge fdb del {MAC} dev cni0 self")
    wait_for("the entry", lambda: entries(bridge.testbed) == {"cni0"})
    assert bridge.seen() == "client"
    bridge.testbed.shell("ip link add cni1 type bridge")
    bridge.testbed.shell("ip link set cni1 up; ip address add 10.9.0.1/24 dev cni1")
    wait_for("both entries", lambda: entries(bridge.testbed) == {"cni0", "cni1"})


def test_a_pod_that_sends_from_our_mac_takes_no_answers_of_others(tmp_path):
    """A bridge learns the senders of frames: before our start, and while our entry is missing."""
    claim = f"""
import socket
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
sock.send(bytes.fromhex("ffffffffffff{MAC.replace(":", "")}88b5") + bytes(46))
"""
    with contextlib.closing(Bridge(tmp_path)) as bridge:
        testbed, thief = bridge.testbed, bridge.testbed.sandbox.add_pod("thief", "bridge")

        def claim_our_mac():
            thief.run([sys.executable, "-c", claim])

        claim_our_mac()
        wait_for("a learned entry", lambda: entries(testbed) == {thief.host_interface})
        bridge.start()
        for version, protocol in itertools.product(VERSIONS, PROTOCOLS):
            wait_for("the client's address", lambda v=version: bridge.seen(v) == "client")
            assert bridge.seen(version, protocol) == "client"
        claim_our_mac()
        assert bridge.seen() == "client"
        testbed.shell(f"bridge fdb del {MAC} dev cni0 self")
        claim_our_mac()
        wait_for("the entry", lambda: entries(testbed) == {"cni0"})
        assert bridge.seen() == "client"


def test_nothing_is_left_after_a_stop_or_a_cleanup(bridge):
    tables = "nft list tables bridge"
    bridge.start()
    wait_for("the entry", lambda: entries(bridge.testbed) == {"cni0"})
    assert "table bridge userspace-proxy/replies" in bridge.testbed.shell(tables)
    assert bridge.testbed.agent.stop() == 0
    assert (entries(bridge.testbed), bridge.testbed.shell(tables)) == (set(), "")
    bridge.testbed.agent.start_until_ready()
    wait_for("the entry", lambda: entries(bridge.testbed) == {"cni0"})
    bridge.testbed.agent.kill()
    assert bridge.testbed.agent.run(command=CLEANUP).returncode == 0
    assert (entries(bridge.testbed), bridge.testbed.shell(tables)) == (set(), "")


def test_an_endpoint_is_reset_when_its_clients_container_has_gone(tmp_path):
    """It can no longer send to the client's address: only the proxy can end the connection."""
    with contextlib.closing(Bridge(tmp_path, "pod")) as bridge:
        bridge.start()
        wait_for("the client's address", lambda: bridge.seen() == "client")
        waiting = {}
        for client in ("bridge-pod", "pod"):
            for state in ("idle", "half-closed", "sending", "trickling"):
                dialled = bridge.testbed[client].dial((CLUSTER_IPS[4].format(10), PORT))
                dialled.send(b"question")
                accepted, _ = accept_who_speaks(bridge.endpoint.servers["TCP", 4])
                if state == "half-closed":
                    dialled.shutdown(socket.SHUT_WR)
                    assert accepted.recv(100) == b""
                waiting[client, state] = accepted
            bridge.testbed.shell(f"ip link del {bridge.testbed.pod(client).host_interface}")
            accepted = waiting[client, "sending"]
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.send(bytes(65536))

        def all_reset():
            # 20 s as docs/on-nodes.md says, and as much again on a busy machine.
            for client in ("bridge-pod", "pod"):
                with contextlib.suppress(OSError):
                    waiting[client, "trickling"].send(b"!")
            poll = select.poll()
            for accepted in waiting.values():
                poll.register(accepted, 0)
            return len(poll.poll(0)) == len(waiting)

        wait_for("a reset of each", all_reset, deadline_s=40, hint=bridge.testbed.agent.log)
        for accepted in waiting.values():
            accepted.close()


def test_an_idle_connection_outlives_an_outage_of_12_s_of_its_clients_link(bridge):
    bridge.start()
    wait_for("the client's address", lambda: bridge.seen() == "client")
    client = bridge.testbed["bridge-pod"]
    dialled = client.dial((CLUSTER_IPS[4].format(10), PORT))
    dialled.send(b"question")
    accepted, _ = accept_who_speaks(bridge.endpoint.servers["TCP", 4])

    def unanswered():
        """Return how often in a row, once a second, the client hasn't answered a keep-alive."""
        shown = bridge.testbed.shell(f"ss -tnoH state established dst {client.host.ip}")
        timer = re.search(r"timer:\(keepalive,[\w.]+,(\d+)\)", shown)
        return int(timer[1]) if timer else None

    wait_for("keep-alive", lambda: unanswered() == 0)
    link = bridge.testbed.pod("bridge-pod").host_interface
    bridge.testbed.shell(f"ip link set {link} down")
    wait_for("12 s of silence", lambda: (unanswered() or 0) >= 12, deadline_s=40)
    bridge.testbed.shell(f"ip link set {link} up")
    wait_for("an answer", lambda: unanswered() == 0)
    with accepted:
        assert talks(dialled, accepted)


def test_a_client_without_tcp_timestamps_uses_up_its_ports_and_is_served_all_the_same(bridge):
    """Ports in TIME_WAIT can't be used again then; the client ends each connection first."""
    serving = f"""
import socket
with socket.create_server(("", {TARGET + 1}), backlog=128) as server:
    print("serves", flush=True)
    while True:
        accepted, peer = server.accept()
        with accepted:
            if accepted.recv(1):
                accepted.send(peer[0].encode())
                accepted.recv(1)
"""
    dialling = f"""
import collections, socket
seen = collections.Counter()
for _ in range({LAST_PORT - FIRST_PORT + 1 + 500}):
    with socket.create_connection({(CLUSTER_IPS[4].format(10), PORT)}, timeout=10) as dialled:
        dialled.send(b"?")
        seen[dialled.recv(100).decode()] += 1
        # None is open any more when the next one is dialled.
        dialled.shutdown(socket.SHUT_WR)
        dialled.recv(1)
print(*seen)
"""
    testbed, client = bridge.testbed, bridge.testbed["bridge-pod"].host
    testbed.shell("sysctl -qw net.ipv4.tcp_timestamps=0")
    service, *slices = objects("bridged", 10, (bridge.endpoint, "node-1"))
    for piece in slices:
        for port in piece["ports"]:
            port["port"] = TARGET + 1
    bridge.start([service, *slices])
    wait_for("the entry", lambda: entries(testbed) == {"cni0"})
    with contextlib.ExitStack() as stack:
        command = [sys.executable, "-c", serving]
        server = bridge.endpoint.host.popen(command, stdout=subprocess.PIPE)
        stack.enter_context(server)
        stack.callback(server.kill)
        assert server.stdout.readline() == "serves\n"
        dialler = client.popen([sys.executable, "-c", dialling], stdout=subprocess.PIPE)
        stack.enter_context(dialler)
        stack.callback(dialler.kill)
        seen = dialler.communicate(timeout=110)[0].split()
    assert seen[0] == str(client.ip)
    assert len(seen) == 2
    assert seen[1] in addresses(testbed.node)
    assert "tcp_timestamps" in testbed.agent.log()
    assert "tcp_timestamps" in html.unescape(testbed.agent.read("/")[1])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_past_the_last_port_the_nodes_address_is_used_where_the_endpoint_has_answered(
    bridge, protocol
):
    """A client that a network policy keeps out may use up its ports, and must stay out."""
    bridge.start()
    wait_for("the client's address", lambda: bridge.seen() == "client")
    address = (CLUSTER_IPS[4].format(10), PORT)
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    client, server = bridge.testbed["bridge-pod"], bridge.endpoint.servers[protocol, 4]
    maker = f"""
import contextlib, socket, sys
held = []
for port in range(61000, 65536):
    held.append(socket.socket(type={int(kind)}))
    # The agent has some already.
    with contextlib.suppress(OSError):
        held[-1].bind(("", port))
print("held", flush=True)
sys.stdin.read()
"""

    def hold():
        process = bridge.testbed.node.popen(
            [sys.executable, "-c", maker], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.readline().strip() == "held"
        return process

    def refused():
        if protocol == "TCP":
            with client.tcp() as dialling:
                dialling.connect(address)
                with pytest.raises(ConnectionResetError):
                    dialling.recv(1)
        else:
            before = refused_count()
            client.udp(address).send(b"question")
            wait_for("a flow that is refused", lambda: refused_count() > before)

    def refused_count():
        return sum(
            port["refused"]
            for port in bridge.testbed.agent.status()["ports"]
            if port["protocol"] == protocol
        )

    # The flow of the first look at whose address is seen would do as an answer.
    bridge.testbed.agent.stop()
    bridge.testbed.agent.start_until_ready()
    wait_for("the entry", lambda: entries(bridge.testbed) == {"cni0"})
    with hold() as process:
        refused()
        process.stdin.close()
    opened = client.dial(address) if protocol == "TCP" else client.udp(address)
    opened.send(b"question")
    if protocol == "TCP":
        accepted, peer = accept_who_speaks(server)
        accepted.send(b"answer")
    else:
        _, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
    assert opened.recv(100) == b"answer"
    assert peer[0] == str(client.host.ip)
    with hold() as process:
        assert bridge.seen(4, protocol) == "node"
        process.stdin.close()
    if protocol == "TCP":
        accepted.close()
