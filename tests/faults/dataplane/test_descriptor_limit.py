import contextlib
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import started
from tests.unit.dataplane.peers import dial
from tests.unit.dataplane.rig import no_descriptors
from tests.unit.dataplane.waiting import until
from userspace_proxy.dataplane import Tuning
from userspace_proxy.model import SocketAddress

CLIENTS = 100
PAUSED = "descriptor limit reached, accepting is paused"
ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def limited(limit, taken, endpoint):
    """Run a data plane that may have few descriptors; gives the process and its address."""
    command = [sys.executable, "-m", "tests.faults.dataplane.limited", str(limit), str(taken)]
    command += [endpoint.ip, str(endpoint.port)]
    with started(command, stderr=subprocess.PIPE, cwd=ROOT) as process:
        yield process, SocketAddress("127.0.0.1", int(process.stdout.readline()))


@pytest.mark.parametrize(
    ("limit", "taken"),
    [
        pytest.param(200, 0, id="that we count"),
        pytest.param(200, 140, id="that others took, an even number"),
        pytest.param(200, 141, id="that others took, an odd number"),
    ],
)
async def test_beyond_the_descriptor_limit_clients_wait_and_all_are_served(rig, limit, taken):
    pod = rig.endpoint()
    with limited(limit, taken, pod.address) as (process, address):
        clients = [rig.keep(await dial(address)) for _ in range(CLIENTS)]
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
    assert log.splitlines().count(f"WARNING {PAUSED}") == 1
    assert "ejected" not in log
    assert "Traceback" not in log


async def test_at_the_limit_for_minutes_there_is_one_line_a_minute(build, timers, caplog):
    caplog.set_level(logging.WARNING)
    rig = build(Tuning(descriptor_limit=3), timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    in_use, _ = await rig.pair(web, pod)
    await rig.client(web)
    for _ in range(240):
        await in_use.send(b"more")
        await until(lambda: not rig.engine.descriptors.is_accepting, "accepting is paused again")
        timers.advance(0.75)
    assert [record.getMessage() for record in caplog.records] == [PAUSED] * 3
    assert pod.accept_now() is None


async def test_within_a_second_of_the_limits_end_all_waiting_clients_are_served(build, timers):
    rig = build(None, timers.clock, timers)
    pod = rig.endpoint()
    web = rig.service(pod.address)
    waiting = [rig.keep(socket.socket()) for _ in range(CLIENTS)]
    with no_descriptors():
        for client in waiting:
            client.connect(web.address)
        await until(lambda: not rig.engine.descriptors.is_accepting, "accepting is paused")
    timers.advance(1)
    for _ in waiting:
        await pod.accept()
    assert len(rig.connections.open) == CLIENTS
