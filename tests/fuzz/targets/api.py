"""Targets for the API server's objects and watches, and for the plan of these objects."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings

from userspace_proxy.cluster import Store
from userspace_proxy.model.wire import FieldError, WirePage, decode
from userspace_proxy.plan.planner import Planner
from userspace_proxy.policy import NodeFacts
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.list_body import ListBody
from userspace_proxy.sources.kubernetes.reflector import NO_LINE_S, Reflector, Timing
from userspace_proxy.sources.kubernetes.resources import (
    SERVICES,
    SLICES,
    ResourceCache,
    metadata_of,
    this_node,
)
from userspace_proxy.sources.manifests.objects import ManifestReader

from . import drawn

FACTS = NodeFacts(
    node_name="node-1",
    zone="east",
    addresses=("127.0.0.1", "192.0.2.10", "2001:db8::10"),
    primary_addresses=("192.0.2.10",),
    external_ip_networks=("0.0.0.0/0", "::/0"),
    cluster_networks=("198.51.100.0/24",),
)
RESOURCES = (SERVICES, SLICES, this_node("node-1"))


class Cluster:
    """The parsed objects, and their plan."""

    def __init__(self) -> None:
        self.store = Store()
        self.caches = [ResourceCache(resource, self.store) for resource in RESOURCES]
        self.planner = Planner(FACTS)

    def check(self) -> None:
        """Check that a new planner's plan is equal, and that each problem is one line."""
        snapshot = self.store.snapshot()
        plan = self.planner.plan(snapshot)
        again = Planner(FACTS).plan(snapshot)
        assert dict(plan.ports) == dict(again.ports)
        assert plan.ignored == again.ignored
        for cache in self.caches:
            for problem in (item.line for item in cache.rejected.values()):
                assert "\n" not in problem, problem


def check_objects(data: bytes) -> None:
    """Check objects, one per line; the first byte of a line selects the kind."""
    cluster = Cluster()
    for line in data.split(b"\n"):
        if line:
            item = line[1:]
            cluster.caches[line[0] % len(RESOURCES)].put(item, metadata_of(item))
    cluster.check()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn.OBJECTS)
def drawn_objects(objects: list[tuple[int, dict[str, Any]]]) -> None:
    """Check that the API server's reader accepts all drawn objects that manifests accept."""
    cluster = Cluster()
    for number, item in objects:
        written = json.dumps(item)
        encoded = written.encode()
        metadata = metadata_of(encoded)
        cluster.caches[number].put(encoded, metadata)
        for found in ManifestReader("file.json").read(written).objects:
            # Earlier objects of this kind may have problems, too.
            alone = ResourceCache(RESOURCES[number], Store())
            alone.put(encoded, metadata)
            assert not alone.rejected, found
    cluster.check()


def check_drawn_objects(data: bytes) -> None:
    """Run :func:`drawn_objects` on objects drawn from these bytes."""
    drawn_objects.hypothesis.fuzz_one_input(data)


def check_list(data: bytes) -> None:
    """Check that a list's items don't depend on its chunks, and equal the JSON's items."""
    found = [_items_of(data, part) for part in (1, 7, 1 << 20)]
    assert found[0] == found[1] == found[2]
    if found[0] is not None:
        page = decode(data, WirePage)
        assert found[0] == [bytes(item) for item in page.items or ()]


def _items_of(data: bytes, part: int) -> list[bytes] | None:
    """Return the items of a list that arrives in chunks; None if the list is rejected."""
    body = ListBody(value_bytes_max=10_000)
    items: list[bytes] = []
    try:
        for start in range(0, len(data), part):
            items += body.feed(data[start : start + part])
        items += body.feed(b"")
    except FieldError:
        return None
    return [item.rstrip(b" \t\r\n") for item in items]


def check_watch(data: bytes) -> None:
    """Check a watch that sends these bytes in two chunks, and ends."""
    cut = len(data) // 2
    client = _Watched([data[:cut], data[cut:]])
    cluster = Cluster()
    reflector = Reflector(
        cluster.caches[0],
        client,  # type: ignore[arg-type]
        changed=lambda: None,
        timing=Timing(),
        rng=random.Random(1),
        clock=lambda: 0.0,
        pause=client.pause,
    )
    with asyncio.Runner() as runner:
        try:
            runner.run(reflector.run())
        except _Done:
            assert "\n" not in reflector.problem
            cluster.check()


class _Done(Exception):
    """The watch has ended, and the reflector would wait."""


class _Watched:
    """An API server with an empty list and a watch that sends these chunks."""

    url = "https://192.0.2.1:6443"
    credentials = Credentials(master=url)

    def __init__(self, chunks: list[bytes]) -> None:
        self._chunks = [chunk for chunk in chunks if chunk]

    @asynccontextmanager
    async def stream(self, _path: str, query: Mapping[str, str]) -> AsyncIterator[SimpleNamespace]:
        empty = _Watched([b'{"metadata":{"resourceVersion":"1"},"items":[]}'])
        yield SimpleNamespace(code=200, read=self._read if "watch" in query else empty._read)

    async def _read(self, *, silence_s: float) -> bytes:
        assert silence_s > 0
        return self._chunks.pop(0) if self._chunks else b""

    async def pause(self, seconds: float) -> None:
        if seconds not in (0, NO_LINE_S):
            raise _Done
