from userspace_proxy.check.client_address import judge_client_address, judge_trusted_peers
from userspace_proxy.policy.bridges import BridgeObstacle


def test_the_reason_why_addresses_are_not_preserved_has_a_remedy():
    (found,) = judge_client_address(
        "Cilium delivers replies of pods past this node's network stack"
    )
    assert found.mark == "warning"
    assert found.what.endswith(
        "not the client's: Cilium delivers replies of pods past this node's network stack"
    )
    assert "--preserve-client-address=never" in found.hint


def test_preserved_addresses_are_ok():
    (found,) = judge_client_address("", [])
    assert (found.mark, found.topic) == ("ok", "client addresses")


def test_a_bridge_without_preserved_addresses_is_a_warning_with_a_remedy():
    obstacle = BridgeObstacle("cni0", 4, "net.bridge.bridge-nf-call-iptables is 0", "sysctl -w …")
    _, found = judge_client_address("", [obstacle])
    assert str(found) == (
        "warning  client addresses: endpoints on bridge cni0 see this node's address instead of "
        "that of IPv4 clients on the same bridge: net.bridge.bridge-nf-call-iptables is 0 "
        "-> sysctl -w …"
    )


def test_pods_among_trusted_load_balancers_are_a_warning():
    (found,) = judge_trusted_peers(["10.0.0.0/8", "198.51.100.1/32"], ["10.244.0.0/16"])
    assert str(found).startswith(
        "warning  client addresses: --accept-proxy-protocol contains addresses of pods "
        "(10.244.0.0/16): they can pass for any client"
    )


def test_load_balancers_outside_the_cluster_are_not_mentioned():
    assert judge_trusted_peers(["198.51.100.1/32"], ["10.244.0.0/16"]) == []
    assert judge_trusted_peers(["10.0.0.0/8"], []) == []
