"""Clients and endpoints on one bridge: endpoints see the clients if the kernel allows it."""

import contextlib
import html
import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.waiting import wait_for
from tests.node.agents import CLEANUP
from tests.node.endpoints import (
    CLUSTER_IPS,
    MAC,
    PORT,
    PROTOCOLS,
    TARGET,
    VERSIONS,
    Bridge,
    Endpoint,
    accept_with_data,
    carries_both_ways,
    entries,
    objects,
    open_bridge,
)

pytestmark = [pytest.mark.long, pytest.mark.netns, pytest.mark.needs("bridge tables")]


CHECK = (sys.executable, "-m", "userspace_proxy", "check")
SYSCTLS = {4: "net.bridge.bridge-nf-call-iptables", 6: "net.bridge.bridge-nf-call-ip6tables"}
OFF = f"sysctl -qw {SYSCTLS[4]}=0 {SYSCTLS[6]}=0"


bridge = pytest.fixture(open_bridge)


def test_bridges_bypassing_netfilter_are_reported_until_fixed(bridge):
    bridge.testbed.shell(OFF)
    bridge.start()
    assert [bridge.seen(version) for version in VERSIONS] == ["node", "node"]
    bridge.wait_for_obstacles(("cni0", "IPv4"), ("cni0", "IPv6"))
    page = html.unescape(bridge.testbed.agent.read("/")[1])
    assert f"{SYSCTLS[4]} is 0" in page
    assert f"sysctl -w {SYSCTLS[4]}=1" in page
    checked = bridge.testbed.agent.run(command=CHECK).stdout
    assert f"IPv6 clients on the same bridge: {SYSCTLS[6]} is 0" in checked
    # The sysctl is switched on and off at run time, which no event announces.
    bridge.testbed.shell(f"sysctl -qw {SYSCTLS[4]}=1")
    bridge.wait_for_obstacles(("cni0", "IPv6"))
    wait_for("the client's address", lambda: bridge.seen(4) == "client")
    assert bridge.seen(6) == "node"
    bridge.testbed.shell(OFF)
    bridge.wait_for_obstacles(("cni0", "IPv4"), ("cni0", "IPv6"))
    for protocol in PROTOCOLS:
        assert bridge.seen(4, protocol) == "node"
    # Set the option for this bridge alone.
    bridge.testbed.shell("ip link set cni0 type bridge nf_call_iptables 1 nf_call_ip6tables 1")
    bridge.wait_for_obstacles()
    for version in VERSIONS:
        wait_for("the client's address", lambda v=version: bridge.seen(v) == "client")
    assert "IPv4 clients on the same bridge" not in bridge.testbed.agent.run(command=CHECK).stdout


def test_pods_on_isolated_ports_see_the_nodes_address(bridge):
    """Neither pod can resolve the other's address."""
    for pod in ("bridge-pod", "bridged"):
        port = bridge.testbed.pod(pod).host_interface
        bridge.testbed.shell(f"ip link set {port} type bridge_slave isolated on")
    bridge.start()
    bridge.wait_for_obstacles(("cni0", "IPv4"), ("cni0", "IPv6"))
    assert bridge.seen() == "node"
    assert "isolated" in bridge.testbed.agent.status()["client_address"]["bridges"][0]["cause"]


@pytest.mark.kernel
def test_a_change_of_the_bridges_mac_ends_no_connection(bridge):
    bridge.start()
    wait_for("the client's address", lambda: bridge.seen() == "client")
    dialled = bridge.testbed["bridge-pod"].dial((CLUSTER_IPS[4].format(10), PORT))
    dialled.send(b"first")
    accepted, _ = accept_with_data(bridge.endpoint.servers["TCP", 4])
    with accepted:
        bridge.testbed.shell("ip link set cni0 address 02:00:00:00:00:77")
        assert carries_both_ways(dialled, accepted)
    assert bridge.seen() == "client"


@pytest.mark.parametrize("version", VERSIONS)
def test_refusals_and_fragments_are_delivered_over_a_bridge(bridge, version):
    """A refusal by ICMP, a refusal by RST, and a datagram of 9,000 bytes in fragments."""
    other = Endpoint(bridge.testbed.sandbox.add_pod("refusing", "bridge"))
    for protocol in PROTOCOLS:
        other.servers[protocol, version].close()
    both = [(bridge.endpoint, "node-1"), (other, "node-1")]
    bridge.start(objects("bridged", 10, *both))
    wait_for("the client's address", lambda: bridge.seen(version) == "client")
    address = (CLUSTER_IPS[version].format(10), PORT)
    server = bridge.endpoint.servers["UDP", version]
    for _ in range(2):
        # Every second flow gets the refusing pod first, and is moved immediately.
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


def test_the_next_process_diverts_replies_without_a_gap(bridge):
    """If an endpoint's packet reached the client directly, the client would send an RST."""
    bridge.start()
    wait_for("the client's address", lambda: bridge.seen() == "client")
    agent, is_over = bridge.testbed.agent, threading.Event()
    dialled = bridge.testbed["bridge-pod"].dial((CLUSTER_IPS[4].format(10), PORT))
    dialled.send(b"first")
    accepted, _ = accept_with_data(bridge.endpoint.servers["TCP", 4])

    def carries_until_it_is_over():
        while not is_over.is_set():
            assert carries_both_ways(dialled, accepted)

    with accepted, ThreadPoolExecutor(1) as thread, contextlib.ExitStack() as stack:
        stack.callback(is_over.set)
        carrying = thread.submit(carries_until_it_is_over)
        agent.kill_control()
        agent.start_until_ready()
        wait_for("the client's address", lambda: bridge.seen() == "client")
        is_over.set()
        carrying.result()


UPLINK = """
ip link add lan1 type bridge mcast_snooping 0
ip link set lan1 up
for version in -4 -6; do
    routes=$(ip $version route show dev eth0 | grep -v ^fe80)
    for address in $(ip $version -o address show dev eth0 scope global | awk '{print $4}'); do
        ip $version address del $address dev eth0
        ip $version address add $address dev lan1 $([ $version = -4 ] || echo nodad)
    done
    { echo "$routes" | grep -v via; echo "$routes" | grep via; } |
        while read -r route; do ip $version route replace $route dev lan1; done
done
ip link set eth0 master lan1
"""


@pytest.mark.parametrize("steering", ["nftables", "iptables"])
def test_replies_from_other_nodes_arrive_over_a_bridge_as_uplink(tmp_path, steering):
    """Such replies are sent to the bridge's own MAC address, for which there is no entry."""
    with contextlib.closing(Bridge(tmp_path, steering=steering)) as bridge:
        testbed = bridge.testbed
        local, remote = bridge.endpoint, Endpoint(testbed.sandbox.add_node().add_pod("remote"))
        bridge.start(
            objects("bridged", 10, (local, "node-1")), objects("remote", 11, (remote, "node-2"))
        )
        wait_for("the client's address", lambda: bridge.seen() == "client")
        # The uplink is changed at run time, too.
        testbed.shell(UPLINK)
        client = testbed["bridge-pod"]
        own = {4: str(client.host.ip), 6: str(client.host.ip6)}

        def seen(version, protocol):
            address = (CLUSTER_IPS[version].format(11), PORT)
            return remote.saw(protocol, version, client, address)[0]

        for version, protocol in itertools.product(VERSIONS, PROTOCOLS):
            wait_for("the address", lambda v=version, p=protocol: seen(v, p) == own[v])
            assert bridge.seen(version, protocol) == "client"
        remote.close()


def test_a_pod_spoofing_the_constant_mac_receives_no_replies_of_other_pods(tmp_path):
    """A bridge learns senders' MACs before the agent starts, and while its entry is missing."""
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


def test_stop_and_cleanup_remove_the_bridge_entries_and_table(bridge):
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
