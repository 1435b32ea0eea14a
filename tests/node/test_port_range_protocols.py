"""Passive FTP, and SIP with RTP: all connections of a client must reach one pod."""

import pytest

from tests.node.range_servers import RangePod, service
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

IP = "10.96.0.21"
SESSIONS, CALLS, CLIENTS = 100, 100, 20
PASSIVE, RTP = (30000, 30100), (20000, 20400)
SHARED = {"affinity-scope": "service"}
AFFINITY = {"sessionAffinity": "ClientIP"}


def call(client, number):
    """Signal a call and send media to one of its ports; return the pods that answered."""
    answers = []
    for port in (5060, RTP[0] + number * 4, RTP[0] + number * 4 + 1):
        sock = client.udp((IP, port))
        sock.send(b"hello")
        name, _, answered = sock.recv(100).decode().partition(" ")
        assert answered == str(port)
        answers.append(name)
    return answers


@pytest.mark.parametrize("path", ["userspace", "kernel"])
def test_signalling_and_media_of_a_call_reach_one_pod(tmp_path, path):
    flags = f"--path={path}", "--workers=2"
    clients = ["pod", "node-1", "bare-pod", "bridge-pod"]
    with Testbed(tmp_path, "nftables", *flags, clients=clients) as testbed:
        media = range(RTP[0], RTP[1] + 1)
        pods = [RangePod(testbed, name, [5060, *media]) for name in ("one", "two", "three")]
        ranges = {"port-ranges": "rtp={}-{}".format(*RTP), **SHARED}
        ports = [("sip", "UDP", 5060, 5060), ("rtp", "UDP", RTP[0], RTP[0])]
        testbed.agent.manifests.write_objects(
            service("sip", [IP], ports, ranges, pods=pods, **AFFINITY)
        )
        testbed.agent.start_until_ready()
        of = [testbed[clients[n % len(clients)]] for n in range(CALLS)]
        met = list(map(call, of, range(CALLS)))
    assert all(len(set(answers)) == 1 for answers in met)
