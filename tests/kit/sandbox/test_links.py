from ipaddress import ip_address

from userspace_proxy_testing.sandbox import links
from userspace_proxy_testing.sandbox.links import FarEnd, FarRoute

POD = FarEnd(42, (ip_address("10.244.0.2"), ip_address("fd00:10:244::2")))
NODE = (ip_address("192.0.2.1"), ip_address("fd00:192:0:2::1"))


def test_no_ipv6_commands_are_run_for_an_unnumbered_pod_without_ipv6():
    wiring = links.unnumbered_pod("veth0", FarEnd(42, POD.addresses[:1]), NODE)
    assert not [line for line in (*wiring.near, *wiring.far_lines()) if "::" in line]


def test_a_route_can_become_a_blackhole():
    assert FarRoute("::/0", "via fe80::1 dev eth0").blackhole() == "route replace blackhole ::/0"
