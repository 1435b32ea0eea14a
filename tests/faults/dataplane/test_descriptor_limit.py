import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.dataplane.peers import dial
from userspace_proxy.model import SocketAddress

CLIENTS = 100
ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def limited(limit, taken, endpoint):
    """Run a data plane that may have few descriptors; gives the process and its address."""
    command = [sys.executable, "-m", "tests.faults.dataplane.limited", str(limit), str(taken)]
    with subprocess.Popen(
        [*command, endpoint.ip, str(endpoint.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        try:
            yield process, SocketAddress("127.0.0.1", int(process.stdout.readline()))
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        pytest.param(200, 0, id="that we count"),
        pytest.param(200, 140, id="that others took, an even number"),
        pytest.param(200, 141, id="that others took, an odd number"),
    ],
)
async def test_beyond_the_descriptor_limit_clients_wait_and_all_are_served(house, limit, taken):
    pod = house.endpoint()
    with limited(limit, taken, pod.address) as (process, address):
        clients = [house.keep(await dial(address)) for _ in range(CLIENTS)]
        for client in clients:
            await client.send(b"question")
        for served in range(CLIENTS):
            server = await pod.accept()
            assert await server.read() == b"question", f"after {served} clients"
            await server.send(b"answer")
            server.reset()
        for client in clients:
            assert await client.read_exactly(6) == b"answer"
        _, log = process.communicate()
    assert log.splitlines().count("WARNING descriptor limit reached, accepting is paused") == 1
    assert "ejected" not in log
    assert "Traceback" not in log
