"""Manifests as a source: real files, published snapshots, and problems in status and log."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from userspace_proxy.cluster import Snapshot
from userspace_proxy.errors import SourceError
from userspace_proxy.model import Balance, ServiceKey
from userspace_proxy.sources import ManifestSource, load_state
from userspace_proxy.sources.base import pause
from userspace_proxy.sources.manifests.source import POLL_S, QUIET_POLL_S, SETTLE_S

from ..running import DEADLINE_S, Published, running

EXAMPLES = Path(__file__).parents[4] / "examples" / "manifests"
WEB = ServiceKey("default", "web")
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.7.1
  ports: [{port: 80}]
"""


@pytest.fixture
def web(tmp_path):
    path = tmp_path / "web.yaml"
    path.write_text(SERVICE)
    return path


def source_of(path, **options) -> ManifestSource:
    return ManifestSource(path, poll_s=0.002, quiet_poll_s=0.002, settle_s=0.001, **options)


def cluster_ip(snapshot: Snapshot) -> str:
    return ",".join(snapshot.services[WEB].service.cluster_ips)


async def test_services_of_manifests_are_published_at_startup_and_after_edits(web):
    async with running(source_of(web.parent)) as published:
        assert cluster_ip(await published.first()) == "10.96.7.1"
        web.write_text(SERVICE.replace("10.96.7.1", "10.96.7.2"))
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")
        web.unlink()
        await published.until(lambda s: s.services == {})


async def test_an_unchanged_manifest_publishes_no_further_snapshot(web):
    turns = 0
    enough = asyncio.Event()

    async def counted(seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns == 5:
            enough.set()
        await pause(0)

    source = ManifestSource(web, pause=counted)
    async with running(source) as published:
        await enough.wait()
        assert len(published.snapshots) == 1


async def waits_of(source: ManifestSource, *edits: Callable[[], object]) -> list[float]:
    """Return the pauses of a source; each edit is made during one of them."""
    waits: list[float] = []
    left = list(edits)
    enough = asyncio.Event()

    async def edited(seconds: float) -> None:
        waits.append(seconds)
        if seconds != SETTLE_S:
            if not left:
                enough.set()
                await asyncio.Event().wait()
            left.pop(0)()
        await pause(0)

    source._pause = edited
    async with running(source):
        await asyncio.wait_for(enough.wait(), DEADLINE_S)
    return waits


async def test_manifests_are_checked_more_often_while_files_change(web):
    waits = await waits_of(ManifestSource(web), lambda: web.write_text(SERVICE + "# edited\n"))
    assert waits == [QUIET_POLL_S, SETTLE_S, QUIET_POLL_S]


async def test_files_without_change_events_are_polled_often(web, tmp_path):
    # A directory has no event if a file changes through a hard link in another directory.
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "web.yaml").hardlink_to(web)
    waits = await waits_of(
        ManifestSource(tmp_path / "shop"),
        lambda: web.write_text(SERVICE + "# edited elsewhere\n"),
        lambda: (tmp_path / "shop" / "web.yaml").write_text(SERVICE),
    )
    assert waits == [QUIET_POLL_S, SETTLE_S, POLL_S, SETTLE_S, QUIET_POLL_S]


async def test_an_edit_takes_effect_without_waiting_for_the_next_poll(web):
    source = ManifestSource(web.parent, poll_s=3600, quiet_poll_s=3600, settle_s=0.001)
    async with running(source) as published:
        await published.first()
        web.write_text(SERVICE.replace("7.1", "7.2"))
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")


async def test_a_file_being_written_is_not_read_before_it_is_complete(web):
    source = ManifestSource(web, poll_s=0.002, quiet_poll_s=0.002, settle_s=0.001)
    async with running(source) as published:
        await published.first()
        with web.open("w") as file:
            file.write(SERVICE.replace("web", "half"))
            file.flush()
            other = web.with_name("cart.yaml")
            for _ in range(50):
                await asyncio.to_thread(other.touch)
            file.write("---\n" + SERVICE.replace("7.1", "7.2"))
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")
    assert [len(s.services) for s in published.snapshots] == [1, 2]


POLLED = """
import asyncio, logging, pathlib, sys
from userspace_proxy.sources import ManifestSource

async def main(path):
    changed = asyncio.Event()
    def publish(snapshot):
        print(*map(str, snapshot.services))
        path.write_text(path.read_text().replace("web", "cart"))
        if len(snapshot.services) and "default/cart" in map(str, snapshot.services):
            changed.set()
    task = asyncio.create_task(ManifestSource(path, poll_s=0.01, settle_s=0.001).run(publish))
    await asyncio.wait_for(changed.wait(), 60)

logging.basicConfig(format="%(message)s %(cause)s")
asyncio.run(main(pathlib.Path(sys.argv[1])))
"""


@pytest.mark.parametrize(
    ("limit", "problem"),
    [
        (
            "max_inotify_watches",
            "inotify: {}: No space left on device (raise the sysctl fs.inotify.max_user_watches",
        ),
        (
            "max_inotify_instances",
            "inotify: Too many open files (raise the sysctl fs.inotify.max_user_instances, or the",
        ),
    ],
)
def test_manifests_are_polled_without_inotify_watches_and_this_is_logged_once(web, limit, problem):
    # A new user namespace has its own limit.
    script = f'echo 0 > /proc/sys/user/{limit}; exec "$@"'
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-ec", script, "sh", sys.executable, "-c", POLLED, str(web)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["default/web", "default/cart"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"cannot watch manifests, polling them: {problem.format(web.parent)}")


async def test_a_broken_edit_keeps_the_last_valid_state_and_is_logged_once(web, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.sources")
    cart = web.with_name("cart.yaml")
    source = source_of(web.parent)
    async with running(source) as published:
        await published.first()
        web.write_text(SERVICE.replace("80", "70000"))
        cart.write_text(SERVICE.replace("web", "cart").replace("7.1", "7.3"))
        await published.until(lambda s: len(s.services) == 2)
        problem = f"{web}:6: spec.ports[0].port: 70000 is not in 1–65535"
        assert cluster_ip(published.last) == "10.96.7.1"
        assert source.status().problems == (problem,)
        assert source.status().is_current
        web.write_text(SERVICE.replace("7.1", "7.2"))
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")
        assert source.status().problems == ()
    assert [(r.levelname, r.message, r.__dict__.get("cause")) for r in caplog.records] == [
        ("WARNING", f"manifest problem: {problem}", problem),
        ("INFO", "manifest problems resolved", None),
    ]


async def test_a_duplicate_label_is_logged_once(web, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.sources")
    twice = SERVICE.replace("name: web", "name: web, labels: {a: x, a: z}")
    web.write_text(twice)
    async with running(source_of(web)) as published:
        await published.first()
        web.write_text(twice.replace("7.1", "7.2"))
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")
    [record] = caplog.records
    text = f"manifest is ambiguous: {web}:3: metadata.labels: key 'a' is given twice"
    assert (record.levelname, record.message[: len(text)]) == ("WARNING", text)


async def test_a_nonexistent_path_ends_the_source_with_an_error(tmp_path):
    with pytest.raises(SourceError, match="cannot read manifests from"):
        await ManifestSource(tmp_path / "nothing").run(Published())


def test_the_example_manifests_are_valid_and_show_their_features():
    state = load_state(EXAMPLES)
    assert state.problems == ()
    services = state.snapshot.services
    assert services.keys() == {ServiceKey("shop", "api"), ServiceKey("shop", "web")}
    api = services[ServiceKey("shop", "api")].service
    assert [port.node_port for port in api.ports] == [30080]
    assert api.is_external_local
    assert api.handling.balance is Balance.LEAST_CONNECTIONS


async def test_a_directory_without_its_last_manifest_is_not_current(web):
    now = 1000.0
    source = source_of(web.parent, clock=lambda: now)
    async with running(source) as published:
        await published.first()
        assert source.status().is_current
        web.unlink()
        async with asyncio.timeout(60):
            while not source.status().problems:
                await asyncio.wait_for(asyncio.to_thread(str), 60)
        assert not source.status().is_current
        assert source.status().is_synced
        now += 60.0
        source._report()
        assert source.status().behind_s == 60.0
        web.write_text(SERVICE.replace("7.1", "7.2"))
        await published.until(lambda s: ServiceKey("default", "web") in s.services)
        assert source.status().behind_s == 0


def test_a_directory_is_identified_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ManifestSource("manifests").identity == str(tmp_path / "manifests")


async def test_objects_read_by_an_earlier_run_are_reused(web):
    earlier = load_state(web.parent).snapshot
    web.with_name("cart.yaml").write_text(SERVICE.replace("web", "cart").replace("7.1", "7.3"))
    source = source_of(web.parent)
    source.resume(earlier)
    async with running(source) as published:
        snapshot = await published.first()
    assert len(snapshot.services) == 2
    assert snapshot.services[WEB] is earlier.services[WEB]
