"""Loss of full-size packets after the handshake: the side that doesn't get them is reported.

pod, laptop ──▶ node-1 ──▶ one                nft in a namespace: meta length > 1000 drop
└─ down: client's input      └─ up: endpoint's input; gap: the node's input
"""

import contextlib
import re
import socket
import threading

import pytest

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S, listen
from tests.node.manifests import Service, with_endpoints
from tests.node.observers import EXPLAIN
from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10", target=9200)
LARGE = 3000
"""A size in bytes that takes several packets."""
WAIT_S = 2.4
"""A client's timeout for the whole answer: the kernel has retransmitted twice within 0.6 s, or
within twice that on a busy machine."""
DROP = (
    "nft 'add table ip mtu; add chain ip mtu in { type filter hook input priority 0; }; "
    "add rule ip mtu in iifname != lo meta length > 1000 drop'"
)
REMEDY = "Large packets may exceed the MTU on the way to "


class Program:
    """A program of a pod that answers each request, whose first byte is its kind.

    Its answers have a head, a body of LARGE bytes, and a tail, each in separate packets.
    """

    def __init__(self, server):
        self._server = server
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock = self._server.accept()[0]
                threading.Thread(target=self._answer, args=(sock,), daemon=True).start()

    def _answer(self, sock):
        with sock, contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(DEADLINE_S)
            while asked := sock.recv(65536):
                sock.sendall(b"head")
                if asked.startswith(b"large"):
                    sock.sendall(bytes(LARGE))
                    sock.sendall(b"tail")


@pytest.fixture
def testbed(tmp_path):
    with Testbed(tmp_path, "nftables", clients=("pod",)) as testbed:
        (one,) = testbed.add_pods("one", tcp=8080)
        with listen(testbed.pod("one"), WEB.target) as server:
            Program(server)
            testbed.serve(with_endpoints(WEB, [one]))
            yield testbed
            server.shutdown(socket.SHUT_RDWR)


def ask(testbed, request, expected, *, waits_s=WAIT_S):
    """Send a request, read until the answer is complete or a timeout; return it."""
    answer = b""
    with testbed["pod"].tcp() as sock, contextlib.suppress(TimeoutError):
        sock.connect(WEB.address)
        sock.sendall(request)
        sock.settimeout(waits_s)
        while len(answer) < expected:
            answer += sock.recv(65536)
    return answer


def drop_in(namespace):
    """Drop full-size packets at a namespace's input."""
    namespace.run(["sh", "-ec", f"PATH=$PATH:/usr/sbin:/sbin; {DROP}"])


def state(testbed):
    return testbed.agent.port("web")["state"]


def says(testbed, text):
    wait_for(text, lambda: text in state(testbed)["sentence"], hint=lambda: str(state(testbed)))


WHOLE = len("head") + LARGE + len("tail")


def test_an_endpoint_that_acknowledges_handshakes_but_no_data_is_reported(testbed):
    drop_in(testbed.pod("one"))
    for _ in range(3):
        assert ask(testbed, b"large" + bytes(LARGE), WHOLE) == b""
    one = f"{testbed.ip('one')}:9200"
    says(testbed, f"Clients fail: {one} acknowledges handshakes, but not what clients send")
    assert state(testbed)["code"] == "packets-lost"
    explained = testbed.agent.run(command=[*EXPLAIN, "shop/web"]).stdout
    assert f"{REMEDY}{testbed.ip('one')}: " in explained
    # Clients that close at the same moment don't indicate a loss, and small packets pass.
    assert ask(testbed, b"large" + bytes(LARGE), WHOLE) == b""
    assert ask(testbed, b"small", 4) == b"head"
    says(testbed, "Served by 1 endpoint now; 4 of 5 connections failed in the last minute: ")
    says(testbed, f": {one} acknowledged handshakes, but not what clients sent")


@pytest.mark.parametrize("leaves", ["close", "reset"])
def test_lost_responses_are_attributed_to_the_client_and_not_to_the_endpoint(testbed, leaves):
    pod = testbed["pod"]
    drop_in(pod.host)
    for _ in range(3):
        with pod.tcp() as sock:
            sock.connect(WEB.address)
            sock.sendall(b"large")
            sock.settimeout(WAIT_S)
            # The head may arrive alone, or in one packet with the rest.
            with contextlib.suppress(TimeoutError):
                while sock.recv(WHOLE):
                    pass
            if leaves == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *[0] * 7]))
    ip = str(pod.host.ip)
    says(
        testbed,
        "Served by 1 endpoint now; 3 of 3 connections failed in the last minute: "
        f"client {ip} did not acknowledge the answers that it was sent",
    )
    (endpoint,) = testbed.agent.port("web")["endpoints"]
    assert (endpoint["cause"], endpoint["ejected_for_s"]) == (None, None)
    assert state(testbed)["hint"].startswith(f"{REMEDY}{ip}: ")


def test_a_slow_reader_and_single_packet_losses_are_not_reported_as_loss(testbed):
    pod = testbed["pod"]
    # Drop each connection's first large data packet, in both directions.
    for host in (pod.host, testbed.pod("one")):
        host.run(
            [
                "sh",
                "-ec",
                "PATH=$PATH:/usr/sbin:/sbin; nft 'add table ip mtu; "
                "add set ip mtu seen { type inet_service . inet_service; size 999; flags dynamic; "
                "}; add chain ip mtu in { type filter hook input priority 0; }; "
                "add rule ip mtu in meta length > 1000 tcp sport . tcp dport != @seen "
                "add @seen { tcp sport . tcp dport } drop'",
            ]
        )
    for _ in range(3):
        assert len(ask(testbed, b"large" + bytes(LARGE), WHOLE, waits_s=DEADLINE_S)) >= WHOLE
    for _ in range(3):
        with pod.tcp() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(WEB.address)
            for _ in range(200):
                sock.sendall(b"large")
            sock.settimeout(WAIT_S)
            assert sock.recv(4) == b"head"
            # The client stops reading for a while, and closes with unread bytes.
            wait_until_probed(testbed)
    said = "Served by 1 endpoint"
    wait_for(said, lambda: state(testbed)["sentence"].startswith(said))
    assert testbed.agent.port("web")["last_minute"]["endpoint_aborts"] == 0
    assert state(testbed)["level"] == "ok", state(testbed)


def wait_until_probed(testbed):
    """Wait until the proxy has sent two window probes or more to a client with a full buffer."""
    show = "ss -Htin state established '( sport >= :10000 )'"
    wait_for("a probe", lambda: re.search(r"backoff:[2-9]", testbed.shell(show)))
