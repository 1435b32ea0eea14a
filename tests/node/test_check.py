"""``userspace-proxy check``: what it finds about input, steering and leftovers of other proxies."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from tests.node.checked_nodes import SLICE, WEB, checked_node
from tests.node.testbed import steerings
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering

pytestmark = pytest.mark.netns

NODE_PORT = WEB.replace("{clusterIP", "{type: NodePort, clusterIP").replace(
    "port: 80", "port: 80, nodePort: 30080"
)
CLEAN_UP = "run kube-proxy --cleanup once, from the image"

node = pytest.fixture(checked_node)


@pytest.mark.kernel
def test_on_a_sound_node_everything_is_ok(node):
    before = node.kernel()
    done = node.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"ok"}
    assert done.stdout.splitlines()[-1].startswith("0 error, 0 warning, ")
    assert node.kernel() == before


def test_a_kernel_that_may_reset_clients_is_not_ok(node):
    node.run("sysctl -qw net.ipv4.tcp_tw_reuse=2")
    (line,) = (line for line in node.check().stdout.splitlines() if "clients are reset" in line)
    assert line.startswith("warning  kernel: net.ipv4.tcp_tw_reuse is 2")
    assert line.endswith("-> sysctl -w net.ipv4.tcp_tw_reuse=1")


@pytest.mark.parametrize("steering", ["nftables", "iptables", "local", "none"])
def test_a_node_port_that_run_would_serve_is_no_finding(node, steering):
    node.run("ip link add v0 type veth; ip link set v0 up; ip addr add 10.9.9.1/24 dev v0")
    node.manifests.write_text(NODE_PORT + SLICE)
    assert node.about("manifests", f"--steering={steering}") == [
        f"ok: 1 Service read [{node.manifests}]"
    ]


def test_endpoints_on_loopback_are_refused_except_without_steering(node):
    node.manifests.write_text((WEB + SLICE).replace("10.244.0.7", "127.0.0.1"))
    assert len(node.about("manifests", "--steering=none")) == 1
    _, found = node.about("manifests", "--steering=local")
    assert found.startswith("warning: shop/web would refuse clients: its only endpoint is refused:")


def test_the_kernel_path_that_a_service_asks_for_and_this_node_lacks_is_a_warning(node):
    asks = "shop, annotations: {userspace-proxy.io/path: kernel}}"
    node.manifests.write_text(WEB.replace("shop}", asks) + SLICE)
    node.run("sysctl -qw net.ipv4.ip_forward=1")
    assert len(node.about("manifests", "--steering=nftables")) == 1
    node.run("sysctl -qw net.ipv4.ip_forward=0")
    warning = "warning: Service shop/web: path kernel is not used: {} [{}:1]"
    for steering, why in (
        ("nftables", "net.ipv4.ip_forward is 0"),
        ("iptables", "this steering has no kernel path: it needs --steering=nftables"),
    ):
        assert node.about("manifests", f"--steering={steering}")[1:] == [
            warning.format(why, node.manifests)
        ]


@pytest.mark.needs("legacy tables")
def test_auto_chooses_what_the_node_uses(node):
    node.run("iptables-legacy -t nat -L >/dev/null")
    assert node.about("steering") == [
        "ok: auto chooses iptables: this node uses legacy tables already (nat)"
    ]


@pytest.mark.kernel
def test_auto_chooses_nftables_on_a_clean_node(node):
    assert node.about("steering") == [
        "ok: auto chooses nftables: no legacy tables are in use here, and the kernel has nftables"
    ]


def test_without_privileges_the_missing_ones_are_named(node):
    command = ["nsenter", f"--net=/proc/self/fd/{node.fd}"]
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    inner = [sys.executable, "-m", "userspace_proxy", "check", f"--manifests={node.manifests}"]
    done = subprocess.run(
        [*command, *drop, *inner],
        pass_fds=[node.fd],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "error    privileges: NET_ADMIN and NET_RAW missing" in done.stdout
    assert "error    steering: auto finds no working steering" in done.stdout


@pytest.mark.needs("legacy tables")
@pytest.mark.parametrize("steering", ["iptables", "nftables"])
@pytest.mark.parametrize(("tool", "family"), [("iptables", "ip"), ("ip6tables", "ip6")])
def test_legacy_rules_of_kube_proxy_have_no_effect_and_are_reported(node, tool, family, steering):
    node.run(
        f"{tool}-legacy -t nat -N KUBE-SERVICES; {tool}-legacy -t nat -N KUBE-SEP-ABC; "
        f"{tool}-legacy -t nat -A PREROUTING -j KUBE-SERVICES"
    )
    steering = f"--steering={steering}"
    assert node.about("kube-proxy", steering) == [
        "warning: still there: chain KUBE-SERVICES and 1 more; this proxy's rules are evaluated "
        f"first, and the old rules see all other traffic [table legacy {family} nat]"
    ]
    assert node.hint("kube-proxy", steering).startswith(CLEAN_UP)


@pytest.mark.needs("legacy tables")
def test_rules_of_kube_proxy_in_nftables_may_precede_legacy_ones(node):
    node.run("iptables-nft -t nat -N KUBE-SERVICES; iptables-nft -t nat -A OUTPUT -j KUBE-SERVICES")
    assert node.about("kube-proxy", "--steering=iptables") == [
        "error: chain KUBE-SERVICES may be evaluated before this proxy's rules [table ip nat]"
    ]
    assert node.about("kube-proxy", "--steering=nftables") == [
        "warning: still there: chain KUBE-SERVICES; this proxy's rules are evaluated first, and "
        "the old rules see all other traffic [table ip nat]"
    ]


def test_the_table_of_kube_proxys_nftables_mode_is_an_error(node):
    node.run("nft add table ip kube-proxy; nft add chain ip kube-proxy services")
    assert node.about("kube-proxy") == [
        "error: its table rejects traffic for which it has no endpoint, under any steering "
        "[nftables table ip kube-proxy]"
    ]
    assert node.hint("kube-proxy").endswith("or nft delete table ip kube-proxy")


def test_the_interface_of_ipvs_mode_is_reported(node):
    # The kernel may have no dummy interfaces; only the name tells.
    node.run("ip link add kube-ipvs0 type bridge")
    assert node.about("kube-proxy") == [
        "warning: kube-ipvs0 still holds Service addresses: after a Service is deleted, this "
        "node's own daemons answer at its address [interface kube-ipvs0]"
    ]


async def leave_behind(name: str) -> None:
    """Steer, and go without taking the rules away."""
    left = make_steering(name, SteeringFacts(refuse_port=29999, proxy_ports=(17000, 29999)))
    await left.start()
    await left.apply({Frontend("10.96.0.10", 80, Protocol.TCP): 17000})
    await left.close()


@pytest.mark.parametrize("steering", steerings("nftables", "iptables"))
def test_rules_left_by_a_crash_are_reported_while_no_proxy_runs(node, steering):
    place = {
        "iptables": "table legacy ip nat, table legacy ip filter",
        "nftables": "nftables table inet userspace-proxy",
    }
    with node:
        asyncio.run(leave_behind(steering))
        lock = NodeLock()
        lock.take()
    try:
        assert node.about("leftovers") == [
            f"error: another userspace-proxy (pid {os.getpid()}) steers this node"
        ]
    finally:
        lock.release()
    assert node.about("leftovers") == [
        f"warning: rules of a userspace-proxy that isn't running [{place[steering]}]"
    ]
    assert "userspace-proxy cleanup removes them" in node.hint("leftovers")
