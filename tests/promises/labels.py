"""The label that selects a Service's proxy, annotations for balancing, and proxy restarts."""

from __future__ import annotations

import signal

import pytest

from .specs import BALANCE, HEADLESS, PROXY_NAME, SLOW_START, Port, Spec
from .udp import say
from .world import World, eventually

LABELLED = Spec("labelled", ["10.96.7.1"], [Port(node_port=30150)], more={"type": "NodePort"})
BALANCED = Spec("balanced", ["10.96.7.2"])
# Enough connections for both workers, which count separately.
LONG_LIVED = 20
RESTARTED = Spec(
    "restarted",
    ["10.96.7.3", "fd00:10:96::73"],
    [Port(80, name="web", node_port=30151), Port(80, "UDP", name="dns", node_port=30151)],
    more={"type": "LoadBalancer"},
    ingress=[{"ip": "203.0.113.30"}],
)


class TestLabels:
    """Labels, annotations and restarts. Source: e2e service.go, where a test names it."""

    @pytest.mark.parametrize(
        ("label", "reason"),
        [
            pytest.param({PROXY_NAME: "canary"}, "its label assigns it to", id="another-proxy"),
            pytest.param({HEADLESS: ""}, "service.kubernetes.io/headless", id="headless"),
        ],
    )
    def test_a_service_with_a_proxy_name_or_headless_label_is_not_served_until_unlabelled(
        self, world: World, label: dict[str, str], reason: str
    ) -> None:
        """Source: e2e "should implement service.kubernetes.io/service-proxy-name", "headless"."""
        at = (world.ip("node-1"), 30150)
        for labels in ({}, label, {}):
            world.put(LABELLED.but(labels=labels).at(*world.pods("one")))
            is_ours = not labels
            assert world.serves("pod", LABELLED.address) is is_ours
            assert world.serves("laptop", at) is is_ours
            assert [reason in said for said in world.ignored_reason("labelled")] == [True] * len(
                labels
            )

    @pytest.mark.parametrize("balance", ["least-connections", "power-of-two-choices"])
    def test_a_new_endpoint_gets_new_connections_while_old_connections_stay_open(
        self, world: World, balance: str
    ) -> None:
        """For long-lived gRPC connections: round robin would give a new pod too few of them."""
        spec = BALANCED.but(annotations={BALANCE: balance})
        world.put(spec.at(*world.pods("one")))
        assert {hold(world) for _ in range(LONG_LIVED)} == {"one"}
        world.put(spec.at(*world.pods("one", "two")))
        assert [hold(world) for _ in range(4)] == ["two"] * 4
        world.put(BALANCED.at(*world.pods("one", "two")))
        assert world.all_of("pod", BALANCED.address) == {"one", "two"}

    def test_slow_start_ramps_up_a_new_endpoint(self, world: World) -> None:
        """This isn't part of Kubernetes; Envoy's slow start does the same."""
        spec = BALANCED.but(annotations={SLOW_START: "1h"})
        world.put(spec.at(*world.pods("one")))
        world.put(spec.at(*world.pods("one", "two")))
        answers = [world.who("pod", spec.address) for _ in range(30)]
        # This is a tenth of the other endpoint's share; each worker counts separately.
        assert answers.count("two") <= 6
        shown = [e["preference"] for e in world.shown(spec.name)[0]["endpoints"]]
        assert sorted(shown) == ["", "starts slowly: 10 %"]
        world.put(BALANCED.at(*world.pods("one", "two")))
        assert world.all_of("pod", spec.address) == {"one", "two"}

    def test_clients_keep_endpoints_after_a_restart_with_source_hash(self, world: World) -> None:
        """This isn't part of Kubernetes; as with Cilium's Maglev, workers and processes agree."""
        spec = BALANCED.but(annotations={BALANCE: "source-hash"})
        world.put(spec.at(*world.pods()))
        before = {name: world.all_of(name, spec.address) for name in world.testbed.clients}
        assert [len(whos) for whos in before.values()] == [1] * len(before)
        world.put(BALANCED.at(*world.pods()))
        world.put(spec.at(*world.pods()))
        after = {name: world.all_of(name, spec.address) for name in world.testbed.clients}
        assert after == before

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["term", "kill"])
    def test_a_restarted_proxy_serves_its_previous_services(
        self, world: World, number: signal.Signals
    ) -> None:
        """Source: e2e "should work after restarting kube-proxy"."""
        world.put(RESTARTED.at(*world.pods("one"), *world.pods("two", v6=True)))
        sock = world.udp("laptop", RESTARTED.address)
        assert say(sock) == "one"
        if number is signal.SIGKILL:
            world.agent.kill()
        else:
            world.agent.stop()
        world.agent.start_until_ready()
        world.settle()
        said = {at: world.who("laptop", at) for at in addresses(world)}
        assert said == addresses(world)
        eventually("the old client", "one", lambda: say(sock))


def addresses(world: World) -> dict[tuple[str, int], str]:
    """Return the restarted Service's addresses, each with the pod that answers there."""
    v4, v6 = RESTARTED.ips
    return {
        (v4, 80): "one",
        (v6, 80): "two",
        ("203.0.113.30", 80): "one",
        (world.ip("node-1"), 30151): "one",
        (world.ip("node-1", v6=True), 30151): "two",
    }


def hold(world: World) -> str:
    """Send a request on a connection that stays open; return the pod that answers."""
    made = world.testbed["pod"].dial(BALANCED.address)
    made.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
    answer = b""
    while not answer.endswith(b"\n") or b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):
        answer += made.recv(4096)
    return answer.rpartition(b"\r\n\r\n")[2].decode().strip()
