"""``userspace-proxy check``: what it finds about firewalls and the network."""

from __future__ import annotations

import pytest

from tests.node.checked_nodes import checked_node

pytestmark = pytest.mark.netns

FIREWALLD = (
    "nft add table inet firewalld",
    "nft 'add chain inet firewalld filter_INPUT { type filter hook input priority 10; }'",
    "nft add rule inet firewalld filter_INPUT ct state established,related accept",
)
REJECT = "nft add rule inet firewalld filter_INPUT reject with icmpx admin-prohibited"
LETS_IN = "nft add rule inet firewalld filter_INPUT ct status dnat accept"
# As a kernel without nft_socket answers to a transaction with such an expression.
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

node = pytest.fixture(checked_node)


def test_a_kernel_without_nft_socket_steers_and_is_named(node):
    node.patch(WITHOUT_SOCKETS)
    said = node.check("--steering=nftables").stdout
    assert "can't work here" not in said
    assert "the kernel has no nft_socket" in said
    assert "modprobe nft_socket" in said


@pytest.mark.kernel
def test_a_policy_of_drop_in_nftables_is_an_error_and_the_remedy_works(node):
    node.run("iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT")
    assert node.about("firewall") == [
        "error: packets to Services may be dropped on their way in: its policy is drop "
        "[chain ip filter INPUT]"
    ]
    node.run(node.hint("firewall"))
    assert node.about("firewall") == ["ok: no chain drops packets that are steered to the proxy"]


def test_a_rule_that_drops_in_a_chain_below_is_found(node):
    node.run(
        "iptables-nft -N ufw-before-input; iptables-nft -A INPUT -j ufw-before-input; "
        "iptables-nft -A ufw-before-input -p tcp --dport 22 -j ACCEPT; "
        "iptables-nft -A ufw-before-input -m comment --comment 'all others' -j REJECT"
    )
    assert node.about("firewall") == [
        "error: packets to Services may be dropped on their way in: chain ufw-before-input: rule "
        "reject [chain ip filter INPUT]"
    ]


def test_a_firewalld_that_accepts_translated_packets_is_ok(node):
    node.run("; ".join([*FIREWALLD, LETS_IN, REJECT]))
    assert node.about("firewall") == ["ok: no chain drops packets that are steered to the proxy"]


@pytest.mark.parametrize(
    "opens",
    [
        pytest.param("ct state '{ established, related }' accept", id="set"),
        pytest.param("ct state vmap '{ established : accept, invalid : drop }'", id="map"),
    ],
)
def test_a_set_or_map_of_states_admits_endpoints_replies(node, opens):
    node.run("; ".join([*FIREWALLD[:2], LETS_IN, REJECT]))
    assert len(node.about("firewall")) == 1
    node.run(f"nft insert rule inet firewalld filter_INPUT {opens}")
    assert node.about("firewall") == ["ok: no chain drops packets that are steered to the proxy"]


@pytest.mark.needs("legacy tables")
def test_a_legacy_policy_of_drop_that_admits_replies_matters_only_to_nftables_steering(node):
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


def test_without_a_route_host_clients_cant_dial_and_the_remedy_works(node):
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
