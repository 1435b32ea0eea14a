from userspace_proxy.check.client_address import judge_client_address
from userspace_proxy.policy.bridges import BridgeObstacle


def test_the_reason_why_addresses_are_not_preserved_has_a_remedy():
    (found,) = judge_client_address(
        "Cilium delivers replies of pods past this node's network stack"
    )
    assert found.mark == "warning"
    assert found.what.endswith(
        "not the client's: Cilium delivers replies of pods past this node's network stack"
    )
    assert "--preserve-client-address=never" in found.way_out


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
