"""Addresses for clients outside the cluster: external IPs, load balancer IPs, node ports."""

from __future__ import annotations

from tests.cluster.waiting import wait_for

from .specs import Port, Spec
from .world import World, eventually

EXTERNAL_IP = "203.0.113.20"
BOTH = (Port(80, name="web"), Port(80, "UDP", name="dns"))
EXTERNAL = Spec("external-ip", ["10.96.5.1"], BOTH, more={"externalIPs": [EXTERNAL_IP]})
OTHER = Spec("other", ["10.96.20.1"])
GREEDY = Spec("greedy", ["10.96.5.2"], more={"externalIPs": ["10.96.20.1", "192.0.2.1"]})
LB_IP = "203.0.113.21"
RANGED = Spec(
    "ranged",
    ["10.96.5.3"],
    [Port(80, name="web", node_port=30130), Port(80, "UDP", name="dns", node_port=30130)],
    more={"type": "LoadBalancer", "loadBalancerSourceRanges": ["198.51.100.0/24"]},
    ingress=[{"ip": LB_IP}],
)
PROXIED = Spec(
    "proxied",
    ["10.96.5.4"],
    [Port(node_port=30131)],
    more={"type": "LoadBalancer"},
    ingress=[{"ip": "203.0.113.22", "ipMode": "Proxy"}, {"ip": "203.0.113.23", "ipMode": "VIP"}],
)
NODE_PORT = Spec(
    "node-port",
    ["10.96.5.5"],
    [Port(80, name="web", node_port=30132), Port(80, "UDP", name="dns", node_port=30132)],
    more={"type": "NodePort"},
)
DAEMON_PORT = 30133
COLLIDING = Spec(
    "colliding", ["10.96.5.6"], [Port(node_port=DAEMON_PORT)], more={"type": "NodePort"}
)
CLAIMED = "203.0.113.24"
FIRST = Spec("claim-a", ["10.96.5.7"], more={"externalIPs": [CLAIMED]})
SECOND = Spec("claim-b", ["10.96.5.8"], more={"externalIPs": [CLAIMED]})


class TestOutside:
    """External addresses. Source: e2e service.go, loadbalancer.go; KEP-1860; CVE-2020-8554."""

    def test_an_allowed_external_ip_is_served_to_all_clients(self, world: World) -> None:
        """Source: e2e "should be possible to connect to a service via ExternalIP …"."""
        at = (EXTERNAL_IP, 80)
        world.put(EXTERNAL.at(*world.pods("one")))
        for protocol in ("TCP", "UDP"):
            assert set(world.by_client(at, protocol).values()) == {"one"}, protocol
        world.put(EXTERNAL.but(more={}).at(*world.pods("one")))
        assert [world.serves("laptop", at, protocol) for protocol in ("TCP", "UDP")] == [False] * 2

    def test_an_external_ip_cannot_take_a_node_or_service_address(self, world: World) -> None:
        world.put(OTHER.at(*world.pods("two")), GREEDY.at(*world.pods("one")))
        assert world.who("pod", OTHER.address) == "two"
        assert world.who("laptop", (world.ip("node-1"), 80)) == "refused"
        assert world.who("pod", GREEDY.address) == "one"
        said = " ".join(world.notes("greedy") + world.ignored_reason("greedy"))
        assert "10.96.20.1" in said
        assert "192.0.2.1" in said

    def test_changed_source_ranges_of_a_load_balancer_apply_immediately(self, world: World) -> None:
        """Source: e2e "should only allow access from service loadbalancer source ranges"."""
        at, by_ranges = (LB_IP, 80), {}
        for ranges in (["198.51.100.0/24"], ["10.244.0.0/16"], []):
            more = {"type": "LoadBalancer", "loadBalancerSourceRanges": ranges}
            world.put(RANGED.but(more=more).at(*world.pods("one")))
            said = world.answers((c, at, p) for c in ("laptop", "pod") for p in ("TCP", "UDP"))
            by_ranges[tuple(ranges)] = list(said.values())
        assert by_ranges == {
            ("198.51.100.0/24",): ["one", "one", "silence", "silence"],
            ("10.244.0.0/16",): ["silence", "silence", "one", "one"],
            (): ["one"] * 4,
        }

    def test_source_ranges_affect_only_the_load_balancer(self, world: World) -> None:
        more = {"type": "LoadBalancer", "loadBalancerSourceRanges": ["192.0.2.77/32"]}
        world.put(RANGED.but(more=more).at(*world.pods("one")))
        assert world.who("laptop", (LB_IP, 80)) == "silence"
        assert world.who("laptop", (world.ip("node-1"), 30130)) == "one"
        assert world.who("pod", RANGED.address) == "one"

    def test_a_load_balancer_ip_with_ip_mode_proxy_is_not_served_by_the_node(
        self, world: World
    ) -> None:
        world.put(PROXIED.at(*world.pods("one")))
        assert world.who("laptop", ("203.0.113.23", 80)) == "one"
        assert not world.serves("laptop", ("203.0.113.22", 80))
        assert "203.0.113.22:80" not in world.agent.frontends("proxied")

    def test_a_node_port_is_reachable_from_all_clients(self, world: World) -> None:
        """Source: e2e "should be able to create a functioning NodePort service"."""
        world.put(NODE_PORT.at(*world.pods("one")))
        everywhere = {name: [(world.ip("node-1"), 30132)] for name in world.testbed.clients}
        everywhere["node-1"] += [("127.0.0.1", 30132)]
        everywhere["pod"] += [("10.244.0.1", 30132)]
        said = {
            (name, at, protocol): world.who(name, at, protocol)
            for name, ats in everywhere.items()
            for at in ats
            for protocol in ("TCP", "UDP")
        }
        assert said == dict.fromkeys(said, "one")

    def test_a_node_port_used_by_a_daemon_is_served_after_its_exit(self, world: World) -> None:
        """Source: e2e "should … node port collisions"; here, the Service waits for the port."""
        at = (world.ip("node-1"), DAEMON_PORT)
        daemon = world.testbed.node.serve("daemon", tcp=DAEMON_PORT)
        world.put(COLLIDING.at(*world.pods("one")))
        assert world.by_client(at) == dict.fromkeys(world.testbed.clients, "daemon")
        assert world.who("pod", COLLIDING.address) == "one"

        def problem() -> str:
            return " ".join(port["problem"] for port in world.shown("colliding"))

        assert str(DAEMON_PORT) in problem()
        # The agent lists other processes' sockets only every few seconds.
        wait_for(
            "the daemon", lambda: f"(pid {daemon.pid})" in problem(), deadline_s=120.0, hint=problem
        )
        daemon.stop()
        eventually("service", "one", lambda: world.who("laptop", at))
        wait_for("the end on the page", lambda: not world.shown("colliding")[0]["problem"])

    def test_a_contested_address_goes_to_the_later_service_once_freed(self, world: World) -> None:
        at = (CLAIMED, 80)
        world.put(FIRST.at(*world.pods("one")))
        world.put(SECOND.at(*world.pods("two")))
        assert world.who("laptop", at) == "one"
        assert world.who("pod", SECOND.address) == "two"
        lost = f"external IP {CLAIMED} is not served: it is already held by shop/claim-a"
        assert world.notes("claim-b") == [lost]
        world.delete(FIRST)
        assert world.who("laptop", at) == "two"
        assert world.notes("claim-b") == []
