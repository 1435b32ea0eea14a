"""The saved state is served until the source has answered, and saved once it is applied."""

import asyncio
import logging
from dataclasses import replace

import pytest

from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.watchers import last_state as module
from userspace_proxy.agent.watchers.last_state import LastState
from userspace_proxy.errors import SteeringError
from userspace_proxy.model import Frontend, Protocol, ServiceKey
from userspace_proxy.sources import Source, SourceStatus
from userspace_proxy.steering import REFUSE

from ..samples import Cluster
from ..watched import WatchedSteering, settled, until

POD = "192.0.2.1"
WEB = Frontend("10.96.0.1", 80, Protocol.TCP)
CART = Frontend("10.96.0.2", 80, Protocol.TCP)
NOW = 1_763_600_000.0
LOGGER = "userspace_proxy.agent"


class Unanswered(Source):
    """A source that publishes only when the test does."""

    kind = "kubernetes"
    location = "https://192.0.2.10:6443"
    current = SourceStatus(is_synced=False)

    async def run(self, publish):
        await asyncio.Event().wait()

    def resume(self, snapshot):
        self.resumed = snapshot

    def status(self):
        return self.current


class Node:
    """A node whose agent starts, exits and starts again."""

    def __init__(self, folder, start):
        self.path = folder / "state.json.gz"
        self.cluster = Cluster()
        self.now = NOW
        self.pauses = []
        self.paused = asyncio.Event()
        self.options = Options(state_dir=str(folder), state_max_age_s=3600.0, node_name="node-1")
        self._start = start

    async def begin(self, fails_with=None, **options):
        """Start an agent's part for the saved state; it runs until :meth:`end`."""
        self.source = Unanswered()
        self.steering = WatchedSteering()
        self.steering.fails_with = fails_with
        self.sync = await self._start(self.steering)
        self.state = LastState(
            self.sync,
            self.source,
            replace(self.options, **options),
            clock=lambda: self.now,
            pause=self.pause,
        )
        await self.state.serve()
        self.task = asyncio.create_task(self.state.run())

    async def pause(self, seconds):
        self.pauses.append(seconds)
        await self.paused.wait()

    async def end(self):
        """Stop the agent's part, like a shutdown."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def publish(self, snapshot, behind_s=0.0):
        is_current = not behind_s
        self.source.current = SourceStatus(is_synced=True, is_current=is_current, behind_s=behind_s)
        self.state.publish(snapshot)

    async def serve_and_end(self):
        """Leave a state on disk with one Service."""
        await self.begin()
        self.publish(self.cluster.serve("web", WEB.ip, POD))
        await until(lambda: self.pauses)
        await self.end()
        self.pauses.clear()

    def mtime(self):
        return self.path.stat().st_mtime


@pytest.fixture
async def node(tmp_path, start):
    node = Node(tmp_path, start)
    yield node
    await node.end()


def lines(caplog, message):
    return [r for r in caplog.records if r.name == LOGGER and r.message.startswith(message)]


async def test_the_saved_state_is_served_until_the_source_is_synced(node, caplog):
    caplog.set_level(logging.INFO, LOGGER)
    await node.serve_and_end()
    node.now += 180
    await node.begin()
    await asyncio.wait_for(node.sync.progress.in_force_after(None), 60)
    assert node.steering.kernel[WEB] is not REFUSE
    (line,) = lines(caplog, "serving the saved state until the source answers")
    assert (line.age_s, line.services, line.location) == (180.0, 1, node.source.location)
    assert node.state.view().served_at == NOW

    node.publish(node.cluster.serve("cart", CART.ip, POD))
    await settled(node.sync)
    assert node.steering.kernel.keys() == {WEB, CART}
    assert node.state.view().served_at == 0
    assert (
        len(
            lines(
                caplog, "received current state from the source, no longer serving the saved state"
            )
        )
        == 1
    )


async def test_startup_waits_a_limited_time_for_the_saved_state_to_be_served(node, monkeypatch):
    monkeypatch.setattr(module, "_HEAD_START_S", 0.01)
    await node.serve_and_end()
    await node.begin(fails_with=SteeringError("cannot commit: Device or resource busy"))
    assert node.sync.progress.in_force is None
    node.steering.fails_with = None
    await until(lambda: WEB in node.steering.kernel)


async def test_the_source_resumes_from_the_saved_state(node):
    await node.serve_and_end()
    await node.begin()
    assert node.source.resumed is node.sync.progress.in_force


async def test_no_rules_change_if_the_source_returns_the_saved_state(node):
    await node.serve_and_end()
    await node.begin()
    await until(lambda: WEB in node.steering.kernel)
    port, calls = node.steering.kernel[WEB], len(node.steering.calls)
    node.publish(node.cluster.serve("web", WEB.ip, POD))
    node.publish(Cluster().serve("web", WEB.ip, POD))
    await settled(node.sync)
    assert node.steering.kernel == {WEB: port}
    assert len(node.steering.calls) == calls


async def test_only_the_applied_state_is_saved(node):
    await node.begin()
    node.steering.fails_with = SteeringError("cannot commit: Device or resource busy")
    node.publish(node.cluster.serve("web", WEB.ip, POD))
    await until(lambda: node.sync.counters.failures)
    assert not node.path.exists()
    node.steering.fails_with = None
    await until(node.path.exists)


async def test_changes_are_saved_together_after_a_pause_and_pending_changes_at_shutdown(node):
    await node.serve_and_end()
    await node.begin()
    node.publish(node.cluster.serve("cart", CART.ip, POD))
    await until(lambda: node.pauses)
    assert node.pauses == [5.0]
    inode = node.path.stat().st_ino
    node.publish(node.cluster.remove("cart"))
    await settled(node.sync)
    assert node.path.stat().st_ino == inode
    await node.end()
    assert node.path.stat().st_ino != inode
    await node.begin()
    await until(lambda: node.sync.progress.in_force)
    assert node.sync.progress.in_force.services.keys() == {ServiceKey("shop", "web")}


async def test_a_large_state_is_saved_less_often(node, monkeypatch):
    monkeypatch.setattr(module, "_BYTES_PER_S", 1)
    await node.begin()
    node.publish(node.cluster.serve("web", WEB.ip, POD))
    await until(lambda: node.pauses)
    assert node.pauses == [node.path.stat().st_size]


async def test_an_equal_state_is_confirmed_by_its_mtime_and_not_saved_again(node):
    await node.serve_and_end()
    inode = node.path.stat().st_ino
    node.now += 180
    await node.begin()
    node.publish(Cluster().serve("web", WEB.ip, POD))
    await until(lambda: node.mtime() == NOW + 180)
    assert node.path.stat().st_ino == inode


async def test_an_unchanged_state_is_confirmed_only_while_the_source_responds(node, monkeypatch):
    monkeypatch.setattr(module, "CONFIRM_S", 0.01)
    node.paused.set()
    await node.begin()
    node.source.current = SourceStatus(is_synced=True, is_current=True)
    await until(lambda: node.pauses[3:])
    assert node.state.view().failures == 0
    await node.end()
    node.pauses.clear()
    await node.serve_and_end()
    node.now += 60
    await node.begin()
    await until(lambda: node.pauses[3:])
    assert node.mtime() == NOW
    node.publish(node.cluster.store.snapshot())
    await until(lambda: node.mtime() == NOW + 60)
    node.source.current = SourceStatus(is_synced=True)
    count = len(node.pauses)
    # A confirmation may be in progress, so wait until it has ended.
    await until(lambda: node.pauses[count + 2 :])
    node.now += 60
    count = len(node.pauses)
    await until(lambda: node.pauses[count + 2 :])
    assert node.mtime() == NOW + 60


async def test_a_late_write_is_dated_by_the_sources_last_response(node):
    await node.serve_and_end()
    await node.begin()
    node.publish(node.cluster.serve("web", WEB.ip, POD))
    await until(lambda: node.pauses)
    node.publish(node.cluster.serve("cart", CART.ip, POD))
    await until(lambda: CART in node.steering.kernel)
    node.source.current = SourceStatus(is_synced=True)
    node.now += 3600
    await node.end()
    assert node.mtime() == NOW
    await node.begin()
    assert node.steering.kernel.keys() == {WEB, CART}


async def test_a_state_is_dated_by_when_its_source_was_current(node):
    await node.begin()
    node.publish(node.cluster.serve("web", WEB.ip, POD), behind_s=120.0)
    await until(lambda: node.pauses)
    assert node.mtime() == NOW - 120


@pytest.mark.parametrize(
    ("later", "options", "cause"),
    [
        pytest.param(3700, {}, "it is 1 h 1 min old (the limit is --state-max-age)", id="old"),
        pytest.param(
            0,
            {"node_name": "node-2"},
            "its node is 'node-1', and this proxy's is 'node-2'",
            id="foreign",
        ),
    ],
)
async def test_an_unusable_state_is_logged_in_one_line(node, caplog, later, options, cause):
    await node.serve_and_end()
    node.now += later
    await node.begin(**options)
    await until(lambda: lines(caplog, "saved state ignored"))
    (line,) = lines(caplog, "saved state ignored")
    assert line.cause == f"cannot use {node.path}: {cause}"
    assert node.sync.progress.in_force is None


async def test_a_state_dated_in_the_future_is_served(node):
    await node.serve_and_end()
    node.now -= 86_400
    await node.begin()
    await until(lambda: node.sync.progress.in_force)
    assert node.state.view().age_at(node.now) == 0


async def test_an_unwritable_disk_is_logged_once(node, caplog, tmp_path):
    caplog.set_level(logging.INFO, LOGGER)
    node.path = tmp_path / "folder" / "state.json.gz"
    (tmp_path / "folder").touch()
    await node.begin(state_dir=str(tmp_path / "folder"))
    node.publish(node.cluster.serve("web", WEB.ip, POD))
    await until(lambda: node.pauses)
    node.now += 30
    node.paused.set()
    await until(lambda: node.state.view().failures > 1)
    view = node.state.view()
    assert view.problem.startswith(f"cannot write {node.path}: File exists (give --state-dir")
    assert view.failing_since == NOW
    assert node.pauses[0] == 30.0
    assert len(lines(caplog, "the state is not ")) == 1
    assert node.steering.kernel.keys() == {WEB}
    (tmp_path / "folder").unlink()
    await until(node.path.exists)
    await until(lambda: not node.state.view().problem)
    assert node.state.view().failing_since == 0
    assert len(lines(caplog, "the state is saved to disk again")) == 1


async def test_without_a_state_directory_no_state_is_read_or_written(node):
    await node.serve_and_end()
    node.path.unlink()
    await node.begin(state_dir="")
    await asyncio.wait_for(node.task, 60)
    node.publish(node.cluster.serve("web", WEB.ip, POD))
    await settled(node.sync)
    await node.end()
    assert not list(node.path.parent.iterdir())
    assert node.state.view().path == ""


async def test_proxies_of_different_names_use_different_files(node, tmp_path):
    await node.begin(proxy_name="canary")
    assert node.state.view().path == str(tmp_path / "state-canary.json.gz")


async def test_shutdown_does_not_wait_for_a_hanging_disk(node, monkeypatch, caplog):
    monkeypatch.setattr(module, "_STOP_S", 0.01)
    await node.serve_and_end()
    await node.begin()
    await until(lambda: node.sync.progress.in_force)
    with node.state._file._lock:
        node.publish(node.cluster.serve("cart", CART.ip, POD))
        await settled(node.sync)
        await node.end()
    (line,) = lines(caplog, "timed out writing the saved state")
    assert line.path == str(node.path)
