"""``userspace-proxy check``: findings about steering, leftovers, firewalls and the network."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.node.checked_nodes import checked_node

pytestmark = pytest.mark.netns


node = pytest.fixture(checked_node)


@pytest.mark.kernel
def test_on_a_healthy_node_all_checks_are_ok(node):
    before = node.kernel()
    done = node.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"ok"}
    assert done.stdout.splitlines()[-1].startswith("0 error, 0 warning, ")
    assert node.kernel() == before


LEGACY = pytest.mark.needs("legacy tables")
CHAIN = "-t nat -N KUBE-SERVICES; {0} -t nat -A OUTPUT -j KUBE-SERVICES"


@pytest.mark.parametrize(
    ("command", "topic", "found"),
    [
        pytest.param("true", "steering", "ok: auto chooses nftables", marks=pytest.mark.kernel),
        pytest.param(
            "iptables-legacy -t nat -L", "steering", "ok: auto chooses iptables", marks=LEGACY
        ),
        pytest.param(
            f"ip6tables-legacy {CHAIN.format('ip6tables-legacy')}",
            "kube-proxy",
            "warning: still there: chain KUBE-SERVICES",
            marks=LEGACY,
        ),
        (f"iptables-nft {CHAIN.format('iptables-nft')}", "kube-proxy", "warning: still there"),
        ("nft add table inet userspace-proxy", "leftovers", "warning: rules of a userspace-proxy"),
        (
            "ip link add veth0 type veth peer name veth1; ip link set veth0 up",
            "interfaces",
            "error: veth0 without an IPv4 address",
        ),
        (
            "ip link add cilium_host type veth peer name cilium_net",
            "client addresses",
            "warning: endpoints see this node's address",
        ),
    ],
    ids=["nftables", "iptables", "legacy-chain", "chain", "table", "no-address", "cilium"],
)
def test_check_finds_the_steering_mode_and_misconfigurations_of_the_node(
    node, command, topic, found
):
    node.run(command)
    (said,) = node.about(topic)
    assert said.startswith(found)


def test_missing_privileges_are_reported(node):
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


@pytest.mark.kernel
def test_an_nftables_drop_policy_is_an_error_and_the_remedy_works(node):
    node.run("iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT")
    assert node.about("firewall") == [
        "error: packets of Services may be dropped: its policy is drop [chain ip filter INPUT]"
    ]
    node.run(node.hint("firewall"))
    assert node.about("firewall") == ["ok: no chain drops packets that are steered to the proxy"]


def test_a_missing_default_route_is_reported_for_host_clients_and_the_remedy_works(node):
    node.run("ip route del default")
    assert node.about("routes") == [
        "warning: programs on this node can't dial 10.96.0.0/12: Network is unreachable, before "
        "any rule is evaluated"
    ]
    node.run(node.hint("routes").partition(", or")[0])
    assert node.about("routes") == ["ok: programs on this node can dial 10.96.0.0/12"]
