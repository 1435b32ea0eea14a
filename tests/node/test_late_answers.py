"""Clients that leave before an endpoint answers, on a real node with two workers."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import Sockets
from tests.node.endpoints import accept_with_data
from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WAIT_S = 1.2
"""Of a client, for an answer."""
SUM = Service("sum", "10.96.0.10", target=9200)
SLOW = Service("slow", "10.96.0.11", target=9201)
LIMITED = Service(
    "limited",
    "10.96.0.12",
    target=9202,
    annotations={"userspace-proxy.io/max-connections": "2"},
)


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node that serves what answers the end of a client's input, and what a test answers."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", "--workers=2") as testbed:
        (one,) = testbed.add_pods("one", sum=SUM.target)
        testbed.serve(with_endpoints(SUM, [one]), with_endpoints(SLOW, [one]))
        yield testbed


@pytest.fixture
def limited(tmp_path_factory):
    """A node whose only worker has all of a limit."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", "--workers=1") as testbed:
        (one,) = testbed.add_pods("one", tcp=LIMITED.target + 100)
        testbed.serve(with_endpoints(LIMITED, [one]))
        yield testbed


def test_an_endpoint_that_answers_the_end_of_its_input_is_not_called_slow(testbed):
    said = "answers right after its clients have left, and not before: its first byte took"

    def sentence() -> str:
        return testbed.agent.port("sum")["state"]["sentence"]

    def is_said() -> bool:
        # An answer ends what was counted. A busy machine may make a round slow: then another one.
        with testbed["pod"].tcp() as client:
            client.connect(SUM.address)
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1)
        for _ in range(3):
            with testbed["pod"].tcp() as client:
                client.connect(SUM.address)
                client.sendall(b"question")
                client.settimeout(WAIT_S)
                with pytest.raises(TimeoutError):
                    client.recv(1)
        late = "first byte took"
        return said in wait_for(late, lambda: next((s for s in [sentence()] if late in s), None))

    wait_for(said, is_said)
    assert "waits for the end of its input" in testbed.agent.port("sum")["state"]["hint"]


def ask(testbed, server):
    """Return a client that has asked, and the endpoint's end of its connection."""
    client = testbed["pod"].dial(SLOW.address)
    client.sendall(b"question")
    return client, accept_with_data(server)[0]


WEB = Service("web", "10.96.0.13")


@pytest.fixture
def two(tmp_path_factory):
    """A node with a Service of two pods."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", "--workers=1") as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", "two", tcp=8080)))
        yield testbed


@pytest.mark.long
def test_connections_that_are_saved_from_a_host_that_comes_and_goes_are_said_to_be_late(two):
    client, pod = two["pod"], two.pod("two")

    def endpoint():
        endpoints = two.agent.port("web")["endpoints"]
        return next(one for one in endpoints if one["address"].startswith(two.ip("two")))

    def is_back():
        return endpoint()["ejected_for_s"] is None and endpoint()["cause"] is None

    chain = "{ type filter hook input priority 0; }"
    pod.run(["nft", f"add table ip gone; add chain ip gone in {chain}"])
    for times in (1, 2, 3):
        pod.run(["nft", "add rule ip gone in tcp dport 8080 drop"])
        while endpoint()["failures"] < times:
            assert client.get(WEB.address) == "one"
        pod.run(["nft", "flush chain ip gone in"])
        wait_for("its return", is_back, hint=two.agent.log)
        # Or it would answer this node alone, should its probe come after the flush.
        wait_for("a client of it", lambda: client.get(WEB.address) == "two")
    state = two.agent.port("web")["state"]
    assert state["sentence"].startswith("Served by 2 endpoints now; 3 of ")
    assert state["sentence"].endswith(
        f"connections were saved late in the last minute: {two.ip('two')}:8080 did not answer"
    )
    assert state["level"] == "attention"


GAME = Service("game", "10.96.0.14", target=9203, protocol="UDP")
_WHILE_S = 4.0
"""Longer than a handshake that is followed by a stream in one direction."""


def test_flows_that_are_kept_and_answered_no_more_are_told_until_they_are_answered(two):
    client, pod = two["pod"], two.pod("one")
    game = with_endpoints(GAME, [two.ip("one")])
    two.edit(game)
    two.agent.wait_until_settled(game)
    kept = [client.udp(GAME.address) for _ in range(2)]

    def state():
        return two.agent.port("game")["state"]

    def ask(*, is_answered):
        for one in kept:
            one.send(b"move")
            _, source = server.recvfrom(100)
            if is_answered:
                server.sendto(b"moved", source)
                assert one.recv(100) == b"moved"
        return state()

    with contextlib.closing(Sockets(pod)) as sockets, sockets.udp() as server:
        server.bind((two.ip("one"), GAME.target))
        began = time.monotonic()
        while time.monotonic() - began < _WHILE_S:
            assert ask(is_answered=True)["level"] == "ok"
        said = f"2 of 2 open flows get no answer any more from {two.ip('one')}:{GAME.target}"
        wait_for(said, lambda: ask(is_answered=False)["sentence"] == said)
        assert "restarted" in state()["hint"]
        wait_for("an answer", lambda: ask(is_answered=True)["sentence"] == "Served by 1 endpoint")
