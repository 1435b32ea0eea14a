"""Root without capabilities, as in a pod with hostNetwork, poses as a part of the proxy."""

import contextlib
import subprocess
import sys

import pytest

from tests.node.manifests import Service, with_endpoints
from tests.node.testbed import Testbed, steerings

pytestmark = pytest.mark.netns

WEB = Service("web", "10.96.0.10")

LOCK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind("\\0userspace-proxy")
sock.listen(1024)
print("ready", flush=True)
sys.stdin.read()
"""

# Answers each client itself, and passes on its own sockets on the first ports of the range.
WORKER = """
import asyncio, socket
from userspace_proxy.plane.channel import Channel
from userspace_proxy.plane.messages import HandedOver, HandOver, ToWorker

ports = []
for port in range(17000, 17010):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("0.0.0.0", port))
    sock.listen()
    sock.setblocking(False)
    ports.append(sock)
worker_socket = socket.socket(socket.AF_UNIX)
worker_socket.bind("\\0userspace-proxy-worker#0123456789abcdef")
worker_socket.listen(1024)
worker_socket.setblocking(False)
channels = []

async def steal(sock):
    while True:
        client, _ = await asyncio.get_running_loop().sock_accept(sock)
        client.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nstolen")
        client.close()

async def main():
    loop = asyncio.get_running_loop()
    thieves = [loop.create_task(steal(sock)) for sock in ports]
    print("ready", flush=True)
    while True:
        control, _ = await loop.sock_accept(worker_socket)
        def receive(message, _descriptors):
            if isinstance(message, HandOver):
                channels[-1].send(HandedOver(0, [], is_last=True), *ports)
        channels.append(
            Channel(loop, control, reads=ToWorker, receive=receive, lost=lambda _cause: None)
        )

asyncio.run(main())
"""


@contextlib.contextmanager
def impostor(testbed, script):
    """Run a script on the node as root without capabilities until the block ends."""
    process = testbed.node.popen(
        [
            *("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"),
            *(sys.executable, "-c", script),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=testbed.agent.environment | {"PYTHONPATH": ":".join(sys.path)},
    )
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@pytest.fixture(params=steerings("nftables", "iptables", "local"))
def testbed(request, tmp_path):
    """A node whose agent isn't running yet."""
    with Testbed(tmp_path, request.param, clients=["pod"]) as testbed:
        testbed.agent.manifests.write(with_endpoints(WEB, testbed.add_pods("one", tcp=8080)))
        yield testbed


def test_sockets_of_an_impostor_of_a_worker_are_not_adopted(testbed):
    with impostor(testbed, WORKER):
        testbed.agent.start_until_ready()
        assert {testbed["pod"].get(WEB.address) for _ in range(20)} == {"one"}
    assert "adopted" not in testbed.agent.log()


@pytest.mark.parametrize("flags", [(), ("--take-over",)], ids=["run", "take-over"])
def test_an_impostor_does_not_hold_the_lock(testbed, flags):
    testbed.agent.flags = flags
    with impostor(testbed, LOCK):
        testbed.agent.start_until_ready()
        assert testbed["pod"].get(WEB.address) == "one"
        # The proxy's lock has another name.
        testbed.agent.flags = ()
        assert f"(pid {testbed.agent.pid}) steers this node" in testbed.agent.run().stderr
