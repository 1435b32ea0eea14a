"""The endpoints that get clients: unready and terminating endpoints, and the client itself."""

from __future__ import annotations

import time
from functools import partial

import pytest

from .specs import PRIORITY, WEIGHT, At, Port, Spec
from .world import PODS, World, eventually

BOTH = (Port(80, name="web"), Port(80, "UDP", name="dns"))
TWO_PROTOCOLS = Spec("two-protocols", ["10.96.3.1"], BOTH)
EMPTY = Spec(
    "empty",
    ["10.96.3.2"],
    [Port(80, name="web", node_port=30110), Port(80, "UDP", name="dns", node_port=30110)],
    more={"type": "NodePort"},
)
LEAVING = Spec("leaving", ["10.96.3.3"])
EARLY = Spec("early", ["10.96.3.4"], more={"publishNotReadyAddresses": True})
SLICED = Spec("sliced", ["10.96.3.5"])
PREFERRED = Spec("preferred", ["10.96.3.7", "fd00:10:96::37"], BOTH)
HAIRPIN = Spec("hairpin", ["10.96.3.6"], BOTH)
REFUSAL_S = 3.0


def leaving(ip: str, *, serving: bool = True) -> At:
    """Return an endpoint of a pod that is being deleted, and that by default serves."""
    return At(ip, ready=False, serving=serving, terminating=True)


class TestEndpoints:
    """Endpoints that get clients. Source: e2e tests, as named in each test."""

    def test_tcp_and_udp_share_a_port_number(self, world: World) -> None:
        """Source: e2e "should serve endpoints on same port and different protocols"."""
        world.put(TWO_PROTOCOLS.at(*world.pods("one")))
        assert set(world.by_client(TWO_PROTOCOLS.address).values()) == {"one"}
        assert set(world.by_client(TWO_PROTOCOLS.address, "UDP").values()) == {"one"}
        world.put(TWO_PROTOCOLS.but(ports=BOTH[1:]).at(*world.pods("one")))
        assert not world.serves("pod", TWO_PROTOCOLS.address)
        assert world.who("pod", TWO_PROTOCOLS.address, "UDP") == "one"

    def test_without_endpoints_clients_are_refused_within_three_seconds(self, world: World) -> None:
        """Source: e2e "should be rejected when no endpoints exist"."""
        began = time.monotonic()
        world.write(EMPTY)
        for address in (EMPTY.address, (world.ip("node-1"), 30110)):
            for protocol in ("TCP", "UDP"):
                eventually(
                    f"refusals of {protocol} at {address}",
                    dict.fromkeys(world.testbed.clients, "refused"),
                    partial(world.by_client, address, protocol),
                )
        assert time.monotonic() - began < REFUSAL_S

    def test_clients_are_refused_while_the_only_endpoint_is_unready(self, world: World) -> None:
        """Source: e2e "should be rejected for evicted pods (no endpoints exist)"."""
        for name in ("one", "two"):
            world.put(EMPTY.at(*world.pods(name)))
            assert set(world.by_client(EMPTY.address).values()) == {name}
            world.put(EMPTY.at(At(world.ip(name), ready=False)))
            assert set(world.by_client(EMPTY.address).values()) == {"refused"}

    def test_serving_terminating_endpoints_are_used_if_none_is_ready(self, world: World) -> None:
        """Source: e2e "should fallback to terminating endpoints when there are no ready …"."""
        one, two, three = world.pods()
        world.put(LEAVING.at(one, leaving(two)))
        assert world.all_of("pod", LEAVING.address) == {"one"}
        world.put(LEAVING.at(leaving(one), leaving(two), leaving(three, serving=False)))
        assert world.all_of("pod", LEAVING.address) == {"one", "two"}
        world.put(LEAVING.at(leaving(one), three))
        assert world.all_of("pod", LEAVING.address) == {"three"}
        world.put(LEAVING.at(leaving(one, serving=False)))
        assert world.who("pod", LEAVING.address) == "refused"

    def test_unready_addresses_are_used_if_slices_mark_them_ready(self, world: World) -> None:
        """Source: e2e "should be able to connect to terminating and unready endpoints …"."""
        one, two = world.pods("one", "two")
        # The control plane marks all endpoints as ready if publishNotReadyAddresses is set.
        world.put(EARLY.at(one, two))
        assert world.all_of("pod", EARLY.address) == {"one", "two"}
        world.put(EARLY.but(more={}).at(one, At(two, ready=False)))
        assert world.all_of("pod", EARLY.address) == {"one"}
        world.put(EARLY.at(one, two))
        assert world.all_of("pod", EARLY.address) == {"one", "two"}

    def test_endpoints_of_several_slices_serve_together(self, world: World) -> None:
        """Source: e2e "should support multiple slices", "… custom EndpointSlices"."""
        one, two, three = (At(ip) for ip in world.pods())
        world.put(SLICED.but(slices=[[one], [two, one], [three]]))
        assert world.all_of("pod", SLICED.address) == set(PODS)
        world.put(SLICED.but(slices=[[one], [three]]))
        assert world.all_of("pod", SLICED.address) == {"one", "three"}
        # A moved endpoint is used, although its old slice still lists it as unready.
        world.put(SLICED.but(slices=[[At(one.ip, ready=False)], [one]]))
        assert world.all_of("pod", SLICED.address) == {"one"}

    @pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    def test_slice_annotations_set_weights_and_priorities(
        self, world: World, protocol: str, v6: bool
    ) -> None:
        """This isn't part of Kubernetes; Cilium has weights, too."""
        address = (PREFERRED.ips[v6], 80)
        one, two, three = ([At(ip)] for ip in world.pods(v6=v6))
        weighted = PREFERRED.but(slices=[one, two], preferences=[{WEIGHT: "500"}, {WEIGHT: "1"}])
        world.put(weighted)
        # One of about 500 connections goes to the other endpoint: in the middle of each worker's
        # turns, or at random.
        said = world.counts("pod", address, protocol)
        assert said["one"] >= 0.8 * world.asks, said
        world.put(weighted.but(preferences=[{WEIGHT: "0"}, {}]))
        assert world.all_of("pod", address, protocol) == {"two"}
        second_first = [{PRIORITY: "1"}, {}, {PRIORITY: "2"}]
        world.put(PREFERRED.but(slices=[one, two, three], preferences=second_first))
        assert world.all_of("pod", address, protocol) == {"two"}
        gone = [At(two[0].ip, ready=False)]
        world.put(PREFERRED.but(slices=[one, gone, three], preferences=second_first))
        assert world.all_of("pod", address, protocol) == {"one"}

    def test_a_pod_reaches_itself_through_its_service(self, world: World) -> None:
        """Source: e2e "should allow pods to hairpin back to themselves through services"."""
        world.put(HAIRPIN.at(*world.pods("pod")))
        assert world.who("pod", HAIRPIN.address) == "pod"
        assert world.who("pod", HAIRPIN.address, "UDP") == "pod"
