"""The socket that reports whether this process serves; tests/cluster/nodes has real rollouts."""

import asyncio
import socket

import pytest

from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.watchers.ready_socket import ReadySocket
from userspace_proxy.sources import SourceStatus
from userspace_proxy.sources.memory import MemorySource
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..samples import Cluster
from ..watched import settle, until


class Unread(MemorySource):
    """A source that isn't synced until the test sets it."""

    location = "https://api.example:6443"
    problems = ()
    is_synced = False

    def status(self):
        return SourceStatus(is_synced=self.is_synced, problems=self.problems)


@pytest.fixture
async def rig(plane, start, tmp_path):
    supervisor = Supervisor()
    rig.loop = await start(FakeSteering())
    rig.source = Unread()
    rig.path = tmp_path / "ready"
    rig.component = ReadySocket(str(rig.path), rig.source, rig.loop.progress, plane)
    rig.supervisor = supervisor
    yield rig
    await rig.component.close()
    await supervisor.stop()


async def ask(rig):
    reader, writer = await asyncio.open_unix_connection(rig.path)
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_the_socket_reports_the_reason_until_the_sources_state_is_applied(rig):
    await rig.component.start(rig.supervisor)
    assert await ask(rig) == "https://api.example:6443 has not been read yet"
    rig.source.problems = ("api.example is away",)
    assert await ask(rig) == "api.example is away"
    # This is the saved state of an earlier run.
    await settle(rig.loop, Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    assert await ask(rig) == "api.example is away"
    rig.source.is_synced = True
    await until(lambda: rig.component.unready_reason() == "")
    assert await ask(rig) == ""


async def test_the_socket_reports_a_first_plan_that_workers_lack(rig, plane, monkeypatch):
    do_serve = asyncio.Event()
    monkeypatch.setattr(plane, "serves", lambda _pause: do_serve.wait())
    await rig.component.start(rig.supervisor)
    rig.source.is_synced = True
    assert "first plan" in await ask(rig)
    await settle(rig.loop, Cluster().serve("web", "10.96.0.1", "192.0.2.1"))
    assert "first plan" in await ask(rig)
    do_serve.set()
    await until(lambda: rig.component.unready_reason() == "")


async def test_a_stale_socket_is_replaced_and_the_new_socket_is_removed_at_shutdown(rig):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(rig.path))
    with pytest.raises(ConnectionRefusedError):
        await ask(rig)
    await rig.component.start(rig.supervisor)
    assert "not been read yet" in await ask(rig)
    await rig.component.close()
    assert not rig.path.exists()


async def test_an_unusable_socket_path_is_logged_and_the_proxy_keeps_running(rig, caplog):
    component = ReadySocket("/proc/no/ready", rig.source, rig.loop.progress, None)
    await component.start(rig.supervisor)
    await component.close()
    assert "cannot answer probes at /proc/no/ready: No such file or directory" in caplog.text
