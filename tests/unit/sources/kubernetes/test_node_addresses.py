import asyncio

import pytest

from userspace_proxy.sources.kubernetes.node_addresses import EVERY_S

from ..running import running


def named(name, *addresses):
    """Return a Node that has these addresses."""
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": listed},
    }


class Pauses:
    """Waits that the test ends."""

    def __init__(self):
        self.asked = []
        self._over = asyncio.Event()

    async def __call__(self, seconds):
        if seconds < 10:
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
            return
        self.asked.append(seconds)
        await self._over.wait()
        self._over.clear()

    def end(self):
        self._over.set()


def lists_of_all(api):
    return [line for line in api.requests if "/nodes" in line and "fieldSelector" not in line]


@pytest.fixture
async def pauses():
    return Pauses()


async def test_other_nodes_are_not_listed_unless_they_are_wanted(api, source_of):
    api.put(named("alice", "192.0.2.1"))
    api.put(named("bob", "192.0.2.2"))
    async with running(source_of(api, node_name="alice")) as published:
        snapshot = await published.first()
    assert snapshot.node_addresses == frozenset()
    assert lists_of_all(api) == []


async def test_while_they_are_wanted_snapshots_have_all_nodes_addresses(api, source_of, pauses):
    api.put(named("alice", "192.0.2.1"))
    api.put(named("bob", "192.0.2.2", "2001:db8::2"))
    source = source_of(api, node_name="alice", pause=pauses)
    async with running(source) as published:
        await published.first()
        source.want_nodes(True)
        both = {"192.0.2.1", "192.0.2.2", "2001:db8::2"}
        await published.until(lambda s: s.node_addresses == both)
        api.put(named("carol", "192.0.2.3"))
        pauses.end()
        await published.until(lambda s: s.node_addresses == both | {"192.0.2.3"})
    assert pauses.asked[0] == EVERY_S


async def test_a_list_that_is_refused_is_logged_and_tried_again(api, source_of, pauses, caplog):
    source = source_of(api, pause=pauses)
    api.put(named("bob", "192.0.2.2"))
    api.refuse("nodes", 403, times=1)
    async with running(source) as published:
        await published.first()
        source.want_nodes(True)
        pauses.end()
        await published.until(lambda s: s.node_addresses == {"192.0.2.2"})
    (line,) = [r for r in caplog.records if "cannot list Nodes" in r.getMessage()]
    assert "403" in line.cause
