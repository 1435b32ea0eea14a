"""Manifests as a source: real files, published snapshots, problems in status and log."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from userspace_proxy.cluster import Snapshot
from userspace_proxy.errors import SourceError
from userspace_proxy.model import Balance, ServiceKey
from userspace_proxy.sources import ManifestSource, load_manifests
from userspace_proxy.sources.base import pause

from ..running import Published, running

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
    return ManifestSource(path, poll_s=0.002, settle_s=0.001, **options)


def cluster_ip(snapshot: Snapshot) -> str:
    return ",".join(snapshot.services[WEB].service.cluster_ips)


async def test_files_are_published_and_edits_follow(web):
    async with running(source_of(web.parent)) as published:
        assert cluster_ip(await published.first()) == "10.96.7.1"
        web.write_text(SERVICE.replace("10.96.7.1", "10.96.7.2"))
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")
        web.unlink()
        await published.until(lambda s: s.services == {})


async def test_nothing_is_published_while_nothing_changes(web):
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


async def test_while_something_changes_the_next_look_is_sooner(web):
    waits: list[float] = []
    enough = asyncio.Event()

    async def edited(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            web.write_text(SERVICE + "# edited\n")
        if len(waits) == 3:
            enough.set()
        await pause(0)

    async with running(ManifestSource(web, pause=edited)):
        await enough.wait()
    assert waits[:3] == [0.5, 0.1, 0.5]


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
    assert [(r.levelname, r.message, r.__dict__.get("problem")) for r in caplog.records] == [
        ("WARNING", "manifest problem", problem),
        ("INFO", "manifest problems resolved", None),
    ]


async def test_foreign_kinds_are_logged_once(web, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.sources")
    web.write_text(SERVICE + "---\n{apiVersion: v1, kind: Pod}\n")
    async with running(source_of(web)) as published:
        await published.first()
        web.write_text(SERVICE.replace("7.1", "7.2") + "---\n{apiVersion: v1, kind: Pod}\n")
        await published.until(lambda s: cluster_ip(s) == "10.96.7.2")
    assert [r.__dict__["object"] for r in caplog.records] == [
        f"{web}:8: kind v1 Pod is not supported"
    ]


async def test_a_path_that_is_not_there_ends_the_run(tmp_path):
    with pytest.raises(SourceError, match="cannot read manifests from"):
        await ManifestSource(tmp_path / "nothing").run(Published())


async def test_a_folder_without_manifests_is_synced_and_a_problem(tmp_path):
    source = source_of(tmp_path)
    async with running(source) as published:
        assert (await published.first()).services == {}
        status = source.status()
    assert status.is_synced
    assert status.problems == (f"{tmp_path}: contains no manifests (*.yaml, *.yml, *.json)",)


def test_manifests_can_be_read_once_without_watching(web):
    web.with_name("cart.yaml").write_text("kind: Service\n")
    snapshot, problems = load_manifests(web.parent)
    assert cluster_ip(snapshot) == "10.96.7.1"
    assert problems == (f"{web.parent}/cart.yaml:1: apiVersion: is missing",)


def test_the_examples_are_valid_and_show_their_features():
    snapshot, problems = load_manifests(EXAMPLES)
    assert problems == ()
    assert snapshot.services.keys() == {ServiceKey("shop", "api"), ServiceKey("shop", "web")}
    api = snapshot.services[ServiceKey("shop", "api")].service
    assert [port.node_port for port in api.ports] == [30080]
    assert api.is_external_local
    assert api.balance is Balance.LEAST_CONNECTIONS


async def test_a_folder_that_cannot_be_read_any_more_is_not_current(web):
    source = source_of(web.parent)
    async with running(source) as published:
        await published.first()
        assert source.status().is_current
        web.unlink()
        async with asyncio.timeout(30):
            while source.status().is_current:
                await asyncio.wait_for(asyncio.to_thread(str), 5)
        assert source.status().is_synced


def test_a_folder_is_identified_by_its_absolute_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ManifestSource("manifests").identity == str(tmp_path / "manifests")


async def test_what_an_earlier_run_read_stays_the_same_objects(web):
    earlier, _ = load_manifests(web.parent)
    web.with_name("cart.yaml").write_text(SERVICE.replace("web", "cart").replace("7.1", "7.3"))
    source = source_of(web.parent)
    source.resume(earlier)
    async with running(source) as published:
        snapshot = await published.first()
    assert len(snapshot.services) == 2
    assert snapshot.services[WEB] is earlier.services[WEB]
