"""``userspace-proxy check``: findings about steering, leftovers, firewalls and the network."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from tests.node.checked_nodes import checked_node
from tests.node.testbed import steerings
from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering import SteeringFacts, make_steering

pytestmark = pytest.mark.netns


CLEAN_UP = "run kube-proxy --cleanup once, from the image"

node = pytest.fixture(checked_node)


@pytest.mark.kernel
def test_on_a_healthy_node_all_checks_are_ok(node):
    before = node.kernel()
    done = node.check()
    assert (done.returncode, done.stderr) == (0, "")
    assert {line.split()[0] for line in done.stdout.splitlines()[:-1]} == {"ok"}
    assert done.stdout.splitlines()[-1].startswith("0 error, 0 warning, ")
    assert node.kernel() == before


@pytest.mark.needs("legacy tables")
def test_auto_prefers_the_tables_in_use_on_the_node(node):
    node.run("iptables-legacy -t nat -L >/dev/null")
    assert node.about("steering") == [
        "ok: auto chooses iptables: this node uses legacy tables already (nat)"
    ]


@pytest.mark.kernel
def test_auto_chooses_nftables_on_a_clean_node(node):
    assert node.about("steering") == [
        "ok: auto chooses nftables: no legacy tables are in use here, and the kernel has nftables"
    ]


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
def test_kube_proxys_nftables_rules_may_precede_legacy_rules(node):
    node.run("iptables-nft -t nat -N KUBE-SERVICES; iptables-nft -t nat -A OUTPUT -j KUBE-SERVICES")
    assert node.about("kube-proxy", "--steering=iptables") == [
        "error: chain KUBE-SERVICES may be evaluated before this proxy's rules [table ip nat]"
    ]
    assert node.about("kube-proxy", "--steering=nftables") == [
        "warning: still there: chain KUBE-SERVICES; this proxy's rules are evaluated first, and "
        "the old rules see all other traffic [table ip nat]"
    ]


async def leave_behind(name: str) -> None:
    """Apply rules, and exit without removing them."""
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


# The error with which a kernel without nft_socket refuses a transaction with that expression.
WITHOUT_SOCKETS = """
import errno
from userspace_proxy.kernel.nf_tables import NftablesError, Ruleset
from userspace_proxy.kernel.nf_tables.writer import NEW_RULE

def refuse(method):
    def call(self, messages):
        if any(b"socket\\0" in message for message in messages):
            raise NftablesError(errno.ENOENT, NEW_RULE)
        return method(self, messages)
    return call

Ruleset.try_out = refuse(Ruleset.try_out)
"""


def test_a_kernel_without_nft_socket_can_steer_and_is_reported(node):
    node.patch(WITHOUT_SOCKETS)
    said = node.check("--steering=nftables").stdout
    assert "can't work here" not in said
    assert "the kernel has no nft_socket" in said
    assert "modprobe nft_socket" in said


@pytest.mark.kernel
def test_an_nftables_drop_policy_is_an_error_and_the_remedy_works(node):
    node.run("iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT")
    assert node.about("firewall") == [
        "error: packets to Services may be dropped on their way in: its policy is drop "
        "[chain ip filter INPUT]"
    ]
    node.run(node.hint("firewall"))
    assert node.about("firewall") == ["ok: no chain drops packets that are steered to the proxy"]


@pytest.mark.needs("legacy tables")
def test_a_legacy_drop_policy_that_admits_replies_affects_only_nftables_steering(node):
    node.run(
        "iptables-legacy -P INPUT DROP; "
        "iptables-legacy -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    )
    assert node.about("firewall", "--steering=iptables") == [
        "ok: no chain drops packets that are steered to the proxy"
    ]
    assert node.about("firewall", "--steering=nftables") == [
        "error: packets to Services may be dropped on their way in: its policy is drop "
        "[chain legacy ip filter INPUT]"
    ]
    node.run(node.hint("firewall", "--steering=nftables"))
    assert node.about("firewall", "--steering=nftables") == [
        "ok: no chain drops packets that are steered to the proxy"
    ]


def test_an_unnumbered_interface_is_reported_with_the_address_used_instead(node):
    node.run("ip link add veth0 type veth peer name veth1; ip link set veth0 up")
    assert node.about("interfaces") == [
        "error: veth0 without an IPv4 address, and this node has no other: traffic that arrives "
        "there can't be steered"
    ]
    node.run("ip addr add 192.0.2.1/32 dev lo")
    assert node.about("interfaces") == [
        "ok: veth0 without an IPv4 address: traffic that arrives there is sent to an address of "
        "this node "
        "(192.0.2.1) instead of the interface's"
    ]


def test_a_missing_default_route_is_reported_for_host_clients_and_the_remedy_works(node):
    node.run("ip route del default")
    assert node.about("routes") == [
        "warning: programs on this node can't dial 10.96.0.0/12: Network is unreachable, before "
        "any rule is evaluated"
    ]
    node.run(node.hint("routes").partition(", or")[0])
    assert node.about("routes") == ["ok: programs on this node can dial 10.96.0.0/12"]


@pytest.mark.kernel
def test_check_reports_whether_endpoints_see_client_addresses_and_why_not(node):
    topic = "client addresses"
    assert node.about(topic) == [
        "ok: endpoints on this node see client addresses; a pod that reaches itself through a "
        "Service sees this node's address"
    ]
    node.run("ip link add cilium_host type veth peer name cilium_net")
    (found,) = node.about(topic)
    assert found.startswith("warning: endpoints see this node's address, not the client's: ")
    assert "Cilium delivers" in found
    assert not node.about(topic, "--preserve-client-address=never")
    assert not node.about(topic, "--steering=none")
