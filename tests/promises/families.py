"""Dual stack with either family first, and IPv6 alone."""

from __future__ import annotations

import pytest

from .specs import ELSEWHERE, At, Port, Spec
from .world import World

V4, V6 = "10.96.6.1", "fd00:10:96::61"
NODE_PORTS = (
    Port(80, name="web", node_port=30140),
    Port(80, "UDP", name="dns", node_port=30140),
)
DUAL = Spec("dual", [V4, V6], NODE_PORTS, more={"type": "NodePort"})
SIX_FIRST = DUAL.but(
    name="six-first",
    ips=["fd00:10:96::62", "10.96.6.2"],
    ports=[Port(80, name="web"), Port(80, "UDP", name="dns")],
    more={},
)
SIX = SIX_FIRST.but(name="six", ips=["fd00:10:96::63"])
EMPTY = SIX.but(name="empty-six", ips=["fd00:10:96::64"])
PINNED = SIX.but(name="pinned-six", ips=["fd00:10:96::65"], more={"sessionAffinity": "ClientIP"})
LOCAL = Spec(
    "local-six",
    ["fd00:10:96::66"],
    [Port(node_port=30141)],
    more={"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30142},
    ingress=[{"ip": "fd00:203:0:113::1"}],
)


class TestFamilies:
    """The IP families of Services. Source: e2e dual_stack.go."""

    @pytest.mark.parametrize("spec", [DUAL, SIX_FIRST, SIX], ids=lambda spec: spec.name)
    def test_each_family_is_served_by_its_own_endpoints(self, world: World, spec: Spec) -> None:
        world.put(spec.at(*world.pods("one"), *world.pods("two", v6=True)))
        for ip in spec.ips:
            who = "two" if ":" in ip else "one"
            for protocol in ("TCP", "UDP"):
                said = world.by_client((ip, 80), protocol)
                assert said == dict.fromkeys(world.testbed.clients, who), (ip, protocol)

    def test_a_dual_stack_node_port_is_reachable_from_all_clients(self, world: World) -> None:
        world.put(DUAL.at(*world.pods("one"), *world.pods("two", v6=True)))
        own4, own6 = world.ip("node-1"), world.ip("node-1", v6=True)
        said = {
            **{(name, own4): "one" for name in world.testbed.clients},
            **{(name, own6): "two" for name in world.testbed.clients},
            ("node-1", "127.0.0.1"): "one",
            ("node-1", "::1"): "two",
        }
        for protocol in ("TCP", "UDP"):
            assert {key: world.who(key[0], (key[1], 30140), protocol) for key in said} == said

    def test_an_ipv6_service_without_endpoints_refuses_clients(self, world: World) -> None:
        world.put(EMPTY)
        for protocol in ("TCP", "UDP"):
            said = world.by_client(EMPTY.address, protocol)
            assert said == dict.fromkeys(world.testbed.clients, "refused"), protocol

    def test_a_family_without_endpoints_refuses_clients_while_the_other_family_serves(
        self, world: World
    ) -> None:
        world.put(DUAL.at(*world.pods("two", v6=True)))
        assert world.who("pod", (V4, 80)) == "refused"
        assert world.who("pod", (V6, 80)) == "two"

    def test_a_service_gains_and_loses_a_second_family(self, world: World) -> None:
        """Source: e2e "should be able to switch from SingleStack to DualStack"; KEP-563."""
        both = (*world.pods("one"), *world.pods("two", v6=True))
        single = DUAL.but(ips=[V4])
        for spec, who in ((single, {V4}), (DUAL, {V4, V6}), (single, {V4})):
            world.put(spec.at(*both))
            assert {ip for ip in (V4, V6) if world.serves("pod", (ip, 80))} == who

    def test_an_ipv6_client_keeps_its_endpoint(self, world: World) -> None:
        world.put(PINNED.at(*world.pods(v6=True)))
        for client in world.testbed.clients:
            assert len(world.all_of(client, PINNED.address)) == 1

    def test_external_local_drops_ipv6_clients_from_outside(self, world: World) -> None:
        (one,) = world.pods("one", v6=True)
        world.put(LOCAL.at(At(one, node=ELSEWHERE)))
        ats = (("fd00:203:0:113::1", 80), (world.ip("node-1", v6=True), 30141))
        said = world.answers((client, at, "TCP") for client in world.testbed.clients for at in ats)
        assert said == {ask: "silence" if ask[0] == "laptop" else "one" for ask in said}
        world.put(LOCAL.at(one))
        assert world.who("laptop", ("fd00:203:0:113::1", 80)) == "one"
