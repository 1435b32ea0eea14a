from ipaddress import ip_address, ip_network
from textwrap import dedent

from userspace_proxy_testing.sandbox import links
from userspace_proxy_testing.sandbox.address_plan import POD_CIDR, SERVICE_CIDR, plan_addresses
from userspace_proxy_testing.sandbox.links import FarEnd, FarRoute

POD = FarEnd(42, (ip_address("10.244.0.2"), ip_address("fd00:10:244::2")))
NODE = (ip_address("192.0.2.1"), ip_address("fd00:192:0:2::1"))
ROUTER = (ip_address("192.0.2.254"),)
IPV4_PLAN = plan_addresses(POD_CIDR, SERVICE_CIDR).without_ipv6()


def same(lines, expected):
    return "\n".join(lines) == dedent(expected).strip()


def test_a_routed_pods_link_has_the_gateway_at_the_nodes_end():
    gateways = (ip_address("10.244.0.1"), ip_address("fd00:10:244::1"))
    wiring = links.routed_pod("veth0", POD, gateways)
    assert same(
        wiring.near,
        """
        link add veth0 type veth peer name eth0 netns 42
        link set veth0 up
        address add 10.244.0.1 dev veth0
        address add fd00:10:244::1 dev veth0
        route replace 10.244.0.2 dev veth0
        route replace fd00:10:244::2 dev veth0
        """,
    )
    assert same(
        wiring.far_lines(),
        """
        link set eth0 up
        address add 10.244.0.2 dev eth0
        address add fd00:10:244::2 dev eth0 nodad
        route replace 10.244.0.1 dev eth0
        route replace fd00:10:244::1 dev eth0
        route replace 0.0.0.0/0 via 10.244.0.1 dev eth0
        route replace ::/0 via fd00:10:244::1 dev eth0
        """,
    )


def test_an_unnumbered_pods_link_has_no_ipv4_address_at_the_nodes_end():
    wiring = links.unnumbered_pod("veth0", POD, NODE)
    assert same(
        wiring.near,
        """
        link add veth0 type veth peer name eth0 netns 42
        link set veth0 up
        address add fe80::1/64 dev veth0
        route replace 10.244.0.2 dev veth0 src 192.0.2.1
        route replace fd00:10:244::2 dev veth0 src fd00:192:0:2::1
        """,
    )
    assert wiring.near_sysctls == (
        "net/ipv4/conf/veth0/proxy_arp=1",
        "net/ipv4/neigh/veth0/proxy_delay=0",
    )
    assert wiring.routes[0] == FarRoute("169.254.1.1", "dev eth0")


def test_an_unnumbered_pod_without_ipv6_gets_no_ipv6_commands():
    wiring = links.unnumbered_pod("veth0", FarEnd(42, POD.addresses[:1]), NODE)
    assert not [line for line in (*wiring.near, *wiring.far_lines()) if "::" in line]


def test_a_bridged_pod_has_its_neighbours_on_the_link():
    wiring = links.bridged_pod("veth0", POD, [ip_network("10.244.0.128/25")])
    assert same(
        wiring.near,
        """
        link add veth0 type veth peer name eth0 netns 42
        link set veth0 master cni0 up
        link set veth0 type bridge_slave hairpin on
        """,
    )
    assert wiring.routes == (
        FarRoute("10.244.0.128/25", "dev eth0"),
        FarRoute("0.0.0.0/0", "via 10.244.0.129 dev eth0"),
    )


def test_the_bridge_keeps_its_hardware_address():
    assert same(
        links.bridge([ip_network("10.244.0.128/25")]),
        """
        link add cni0 address 02:00:00:00:00:01 type bridge mcast_snooping 0
        link set cni0 up
        address add 10.244.0.129/25 dev cni0
        """,
    )


def test_the_lans_router_rejects_addresses_beyond_it_soon():
    assert same(
        links.lan(IPV4_PLAN, ROUTER),
        """
        link add lan0 address 02:00:00:00:00:02 type bridge mcast_snooping 0
        link set lan0 up
        address add 192.0.2.254/24 dev lan0
        route add 198.51.100.0/24 dev lan0
        link add uplink type veth peer name nowhere
        link set nowhere up
        link set uplink up
        route add 0.0.0.0/0 dev uplink
        """,
    )
    assert links.lan_sysctls(IPV4_PLAN) == [
        "net/ipv4/neigh/uplink/mcast_solicit=1",
        "net/ipv4/neigh/uplink/retrans_time_ms=10",
    ]


def test_a_node_has_a_default_route_and_sees_outside_clients_on_its_link():
    pods = [ip_network("10.244.0.0/24")]
    far = FarEnd(42, NODE[:1])
    wiring = links.node("node0", far, IPV4_PLAN, pods=pods, router=ROUTER)
    assert same(
        wiring.far_lines(),
        """
        link set eth0 up
        address add 192.0.2.1 dev eth0
        route add unreachable 10.244.0.0/24
        route replace 192.0.2.0/24 dev eth0
        route replace 198.51.100.0/24 dev eth0
        route replace 0.0.0.0/0 via 192.0.2.254 dev eth0
        """,
    )


def test_an_outside_client_reaches_only_services_through_the_node():
    far = FarEnd(42, (ip_address("198.51.100.1"),))
    wiring = links.outside("out0", far, IPV4_PLAN, via=NODE)
    assert same(
        [route.line() for route in wiring.routes],
        """
        route replace 198.51.100.0/24 dev eth0
        route replace 192.0.2.0/24 dev eth0
        route replace 10.96.0.0/12 via 192.0.2.1 dev eth0
        route replace 203.0.113.0/24 via 192.0.2.1 dev eth0
        """,
    )


def test_nodes_reach_each_others_pods_in_each_family():
    pods = [ip_network("10.244.0.0/25"), ip_network("fd00:10:244::/65")]
    assert same(
        links.to_node(pods, NODE),
        """
        route replace 10.244.0.0/25 via 192.0.2.1
        route replace fd00:10:244::/65 via fd00:192:0:2::1
        """,
    )


def test_a_route_can_become_a_blackhole():
    assert FarRoute("::/0", "via fe80::1 dev eth0").blackhole() == "route replace blackhole ::/0"
