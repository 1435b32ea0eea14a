"""Session affinity: a client keeps its endpoint for the timeout in the Service's spec."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.waiting import wait_for

from .specs import Port, Spec
from .world import PODS, Address, World, after

CLIENT_IP = {"sessionAffinity": "ClientIP"}
PINNED = Spec("pinned", ["10.96.1.1"], more=CLIENT_IP)
SWITCHED = Spec("switched", ["10.96.1.3"])
SHORT = Spec("short", ["10.96.1.4"], more=CLIENT_IP)
NODE_PORT = Spec(
    "pinned-np", ["10.96.1.5"], [Port(node_port=30011)], more={"type": "NodePort", **CLIENT_IP}
)
TIMEOUT_S = 1


@contextlib.contextmanager
def asking(world: World, at: Address) -> Iterator[dict[str, list[str]]]:
    """Connect continuously with each protocol; yield lists of the pods that have answered."""
    seen: dict[str, list[str]] = {"TCP": [], "UDP": []}
    is_over = threading.Event()

    def ask(protocol: str) -> None:
        while not is_over.is_set():
            seen[protocol].append(world.who("pod", at, protocol, leaves_nothing=True))

    with ThreadPoolExecutor(len(seen)) as pool:
        asked = [pool.submit(ask, protocol) for protocol in seen]
        try:
            yield seen
        finally:
            is_over.set()
    for one in asked:
        one.result()


class TestAffinity:
    """Session affinity. Source: e2e "… session affinity work …", "… timeout …", "… switch …"."""

    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    def test_clients_keep_an_endpoint_until_its_removal(self, world: World, protocol: str) -> None:
        spec = PINNED.but(name=f"pinned-{protocol.lower()}", ports=[Port(protocol=protocol)])
        world.put(spec.at(*world.pods()))
        (first,) = world.all_of("pod", spec.address, protocol)
        world.put(spec.at(*world.pods(*(name for name in PODS if name != first))))
        (second,) = world.all_of("pod", spec.address, protocol)
        assert second != first
        world.put(spec.at(*world.pods()))
        assert world.all_of("pod", spec.address, protocol) == {second}
        world.delete(spec)

    def test_a_client_dialling_during_the_first_update_reaches_one_endpoint(
        self, world: World
    ) -> None:
        """Source: e2e "should function for client IP based session affinity"."""
        spec = PINNED.but(
            name="awaited", ports=[Port(name="web"), Port(protocol="UDP", name="dns")]
        )
        # Repeat this, because a client connects at the critical moment only by chance.
        for _ in range(4):
            world.put(spec)
            with asking(world, spec.address) as seen:
                world.put(spec.at(*world.pods()))
                for names in seen.values():
                    wait_for("an answer", lambda names=names: names[-1:] and names[-1] in PODS)
            for protocol, names in seen.items():
                assert len({name for name in names if name in PODS}) == 1, (protocol, names)
            world.delete(spec)

    def test_a_client_of_a_node_port_keeps_its_endpoint(self, world: World) -> None:
        world.put(NODE_PORT.at(*world.pods()))
        at = (world.ip("node-1"), 30011)
        assert len(world.all_of("laptop", at)) == 1
        assert world.all_of("laptop", at) == world.all_of("laptop", at)

    def test_affinity_expires_after_its_timeout(self, world: World) -> None:
        config = {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": TIMEOUT_S}}}
        world.put(SHORT.but(more=CLIENT_IP | config).at(*world.pods()))
        (first,) = world.all_of("pod", SHORT.address)
        seen = {first}
        # Other clients take turns in between, so the client's next endpoint differs; the kernel
        # path chooses randomly.
        for _ in range(12):
            if seen == {first}:
                after(TIMEOUT_S + 0.1)
                seen |= world.all_of("pod", SHORT.address)
        assert seen - {first}

    def test_affinity_can_be_toggled_on_a_live_service(self, world: World) -> None:
        world.put(SWITCHED.at(*world.pods()))
        assert world.all_of("pod", SWITCHED.address) == set(PODS)
        world.put(SWITCHED.but(more=CLIENT_IP).at(*world.pods()))
        assert len(world.all_of("pod", SWITCHED.address)) == 1
        world.put(SWITCHED.at(*world.pods()))
        assert world.all_of("pod", SWITCHED.address) == set(PODS)
