import errno

from userspace_proxy.check.client_address import (
    find_bridge_obstacles,
    find_obstacle,
    judge_client_address,
    judge_trusted_peers,
)
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.policy.bridges import BridgeProblem


def test_the_reason_for_unpreserved_client_addresses_has_a_remedy():
    (found,) = judge_client_address(
        "Cilium delivers replies of pods past this node's network stack"
    )
    assert found.mark == "warning"
    assert found.what.endswith(
        "not the client's: Cilium delivers replies of pods past this node's network stack"
    )
    assert "--preserve-client-address=never" in found.hint


def test_preserved_client_addresses_are_reported_as_ok():
    (found,) = judge_client_address("", [])
    assert (found.mark, found.topic) == ("ok", "client addresses")


def test_a_bridge_without_preserved_addresses_is_a_warning_with_a_remedy():
    obstacle = BridgeProblem("cni0", 4, "net.bridge.bridge-nf-call-iptables is 0", "sysctl -w …")
    _, found = judge_client_address("", [obstacle])
    assert (found.mark, found.topic, found.hint) == ("warning", "client addresses", "sysctl -w …")
    assert all(part in found.what for part in ("bridge cni0", "IPv4 clients", obstacle.cause))


def test_a_missing_kernel_feature_is_reported_as_preventing_client_addresses(node):
    assert find_obstacle(LACKS_NOTHING) == ""
    assert find_obstacle(KernelOffers({"tproxy": errno.ENOENT})) == (
        "this kernel lacks tproxy (modprobe nft_tproxy)"
    )


def test_without_bridge_tables_addresses_of_bridged_clients_are_not_preserved(node):
    node.run(
        "ip link add cni0 type bridge; ip addr add 10.244.1.1/24 dev cni0; ip link set cni0 up; "
        "sysctl -qw net.bridge.bridge-nf-call-iptables=1"
    )
    cluster = ["10.244.0.0/16"]
    assert find_bridge_obstacles(cluster, LACKS_NOTHING) == ()
    without = KernelOffers({"bridge tables": errno.EAFNOSUPPORT})
    (obstacle,) = find_bridge_obstacles(cluster, without)
    assert (obstacle.bridge, obstacle.cause) == (
        "cni0",
        "this kernel lacks bridge tables (CONFIG_NF_TABLES_BRIDGE)",
    )


def test_pods_among_trusted_load_balancers_are_a_warning():
    (found,) = judge_trusted_peers(["10.0.0.0/8", "198.51.100.1/32"], ["10.244.0.0/16"])
    assert str(found).startswith(
        "warning  client addresses: --accept-proxy-protocol contains addresses of pods "
        "(10.244.0.0/16): they can pass for any client"
    )


def test_load_balancers_outside_the_cluster_are_not_reported():
    assert judge_trusted_peers(["198.51.100.1/32"], ["10.244.0.0/16"]) == []
    assert judge_trusted_peers(["10.0.0.0/8"], []) == []
