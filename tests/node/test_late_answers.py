"""Clients that leave before an endpoint answers, on a real node with two workers."""

from __future__ import annotations

import contextlib
import select
import socket
import time

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import Sockets, listen
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


def test_clients_that_leave_at_once_are_no_fault_of_an_endpoint_that_answers(testbed):
    with listen(testbed.pod("one"), SLOW.target) as server:
        client, accepted = ask(testbed, server)
        with client, accepted:
            accepted.sendall(b"answer")
            assert client.recv(100) == b"answer"
        asked = [ask(testbed, server) for _ in range(3)]
        asked[-1][0].settimeout(WAIT_S)
        with pytest.raises(TimeoutError):
            asked[-1][0].recv(1)
        for client, _accepted in asked:
            client.close()
        for _client, accepted in asked:
            with accepted:
                assert accepted.recv(1) == b""
                accepted.sendall(b"answer")
    wait_for("the ends", lambda: not testbed.agent.port("slow")["active"])
    port = testbed.agent.port("slow")
    assert port["connections"] == 4
    assert port["state"]["sentence"] == "Served by 1 endpoint"


def test_clients_that_leave_a_queue_are_explained_by_the_limit_for_which_they_waited(limited):
    client = limited["pod"]
    with listen(limited.pod("one"), LIMITED.target) as server:
        busy = [client.dial(LIMITED.address) for _ in range(2)]
        for one in busy:
            one.sendall(b"question")
        accepted = [accept_with_data(server)[0] for _ in busy]
        for _ in range(4):
            with client.tcp() as waiting:
                waiting.connect(LIMITED.address)
                waiting.sendall(b"question")
                waiting.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    waiting.recv(1)
        for one, other in zip(busy, accepted, strict=True):
            with one, other:
                other.sendall(b"answer")
                assert one.recv(100) == b"answer"
    said = (
        "4 of 6 connections failed in the last minute: endpoints were at their limit on this node "
        "(max-connections)"
    )
    wait_for(said, lambda: said in limited.agent.port(LIMITED.name)["state"]["sentence"])


WEB = Service("web", "10.96.0.13")


@pytest.fixture
def two(tmp_path_factory):
    """A node with a Service of two pods."""
    with Testbed(tmp_path_factory.mktemp("agent"), "nftables", "--workers=1") as testbed:
        testbed.serve(with_endpoints(WEB, testbed.add_pods("one", "two", tcp=8080)))
        yield testbed


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


def test_endpoints_that_leave_and_return_again_and_again_are_no_tick(two):
    ips, manifests = [two.ip("one"), two.ip("two")], two.agent.manifests

    def has(state):
        return lambda: two.agent.port("web")["state"]["sentence"].startswith(state)

    for _ in range(3):
        wait_for("its endpoints", has("Ready: 2 endpoints"))
        manifests.write(with_endpoints(WEB, []))
        wait_for("none", has("Clients are refused: "))
        manifests.write(with_endpoints(WEB, ips))
    said = "it had no endpoint 3 times in the last minute; clients that came then were turned away"
    wait_for(said, lambda: said in two.agent.port("web")["state"]["sentence"])
    assert two.agent.port("web")["state"]["level"] == "attention"


OTHER = Service("other", "10.96.0.15", target=9204)
_ROUNDS = 6


def test_of_two_endpoints_the_one_is_named_at_which_more_clients_failed(two):
    other = with_endpoints(OTHER, [two.ip("one"), two.ip("two")])
    two.edit(other)
    two.agent.wait_until_settled(other)
    with (
        listen(two.pod("one"), OTHER.target) as often,
        listen(two.pod("two"), OTHER.target) as seldom,
    ):
        fails_at = {often: [0, 2, 4], seldom: [_ROUNDS - 1]}
        asked = {often: 0, seldom: 0}
        while min(asked.values()) < _ROUNDS:
            with two["pod"].dial(OTHER.address) as asking:
                asking.sendall(b"question")
                server = select.select([often, seldom], (), ())[0][0]
                accepted, _ = accept_with_data(server)
                with accepted:
                    answer = b"" if asked[server] in fails_at[server] else b"answer"
                    accepted.sendall(answer)
                assert asking.recv(100) == answer
            asked[server] += 1
    said = (
        f"4 of {sum(asked.values())} connections failed in the last minute: "
        f"{two.ip('one')}:{OTHER.target} accepted connections and ended them without answering"
    )
    wait_for(said, lambda: said in two.agent.port(OTHER.name)["state"]["sentence"])
    assert two.agent.port(OTHER.name)["last_minute"]["cause"]["count"] == len(fails_at[often])


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


TALK = Service("talk", "10.96.0.16", target=9205)
_WAITED_S = 1.0
"""Of a client for a further answer, before it leaves; less than the proxy takes for a wait ends."""


class Talk:
    """Connections to a Service whose only endpoint a test speaks for."""

    def __init__(self, testbed, server):
        self._testbed, self._server = testbed, server

    def greet(self):
        """Return a client that was answered once, and the endpoint's end."""
        client = self._testbed["pod"].dial(TALK.address)
        client.sendall(b"hello")
        accepted, _ = accept_with_data(self._server)
        accepted.sendall(b"hello, too")
        assert client.recv(100) == b"hello, too"
        return client, accepted

    def ask_and_leave(self, last_words=b""):
        """A client asks again, waits for nothing, and leaves."""
        client, accepted = self.greet()
        with client, accepted:
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            client.settimeout(_WAITED_S)
            with pytest.raises(TimeoutError):
                client.recv(1)
            # In one packet with the FIN.
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            client.sendall(last_words)
            client.shutdown(socket.SHUT_WR)
            assert accepted.recv(100) == last_words

    def ask_and_see_the_end(self):
        """The endpoint ends a connection instead of an answer."""
        client, accepted = self.greet()
        with client, accepted:
            client.sendall(b"question")
            assert accepted.recv(100) == b"question"
            assert not select.select([client], (), (), 0.2)[0]
            accepted.close()
            assert client.recv(1) == b""

    def idle_and_leave(self):
        """A client that was answered idles, and leaves."""
        client, accepted = self.greet()
        with client, accepted:
            assert not select.select([client], (), (), _WAITED_S)[0]

    def state(self):
        return self._testbed.agent.port(TALK.name)["state"]


@pytest.fixture
def talk(two):
    served = with_endpoints(TALK, [two.ip("one")])
    two.edit(served)
    two.agent.wait_until_settled(served)
    with listen(two.pod("one"), TALK.target) as server:
        yield Talk(two, server)


ENDED = "connections ended without an answer to the client's last words in the last minute"


def test_clients_that_wait_in_vain_for_a_further_answer_are_told(talk):
    for _ in range(3):
        talk.ask_and_leave()
    said = f"3 of 3 {ENDED}"
    wait_for(said, lambda: said in talk.state()["sentence"], hint=lambda: str(talk.state()))
    # Some protocols have no answer to the last words.
    assert (talk.state()["level"], talk.state()["word"]) == ("ok", "unknown")
    for _ in range(10):
        client, accepted = talk.greet()
        client.close()
        accepted.close()
    talk.ask_and_see_the_end()
    said = f"Served by 1 endpoint now; 4 of 14 {ENDED}: "
    wait_for(
        said, lambda: talk.state()["sentence"].startswith(said), hint=lambda: str(talk.state())
    )
    assert talk.state()["level"] == "attention"
    assert "may hang at some requests" in talk.state()["hint"]


def test_clients_that_were_answered_and_leave_are_not(talk, two):
    for _ in range(3):
        talk.idle_and_leave()
    wait_for("the ends", lambda: not two.agent.port(TALK.name)["active"])
    assert two.agent.port(TALK.name)["connections"] == 3
    assert talk.state()["sentence"] == "Served by 1 endpoint"


def test_what_clients_say_as_they_leave_is_no_question(talk):
    """TLS says so (close_notify), and HTTP/2."""
    for _ in range(3):
        talk.ask_and_leave(b"bye")
    said = f"3 of 3 {ENDED}"
    wait_for(said, lambda: said in talk.state()["sentence"], hint=lambda: str(talk.state()))
