import asyncio

import pytest

from userspace_proxy.cluster import Snapshot
from userspace_proxy.sources.kubernetes.node_addresses import EVERY_S

from ..running import running


def named(name, *addresses):
    """Return a Node with these addresses."""
    listed = [{"type": "InternalIP", "address": address} for address in addresses]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": listed},
    }


class Pauses:
    """Pauses that the test ends."""

    def __init__(self):
        self.asked = []
        self._over = asyncio.Event()
        self._begun = asyncio.Event()

    async def __call__(self, seconds):
        if seconds < 10:
            await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop
            return
        self.asked.append(seconds)
        self._begun.set()
        await self._over.wait()
        self._over.clear()

    async def first(self):
        """Wait until a pause has begun."""
        await self._begun.wait()

    def end(self):
        self._over.set()


def lists_of_all(api):
    return [line for line in api.requests if "/nodes" in line and "fieldSelector" not in line]


@pytest.fixture
async def pauses():
    return Pauses()


async def test_other_nodes_are_not_listed_unless_needed(api, source_of):
    api.put(named("alice", "192.0.2.1"))
    api.put(named("bob", "192.0.2.2"))
    async with running(source_of(api, node_name="alice")) as published:
        snapshot = await published.first()
    assert snapshot.node_addresses is None
    assert lists_of_all(api) == []


async def test_snapshots_contain_all_nodes_addresses_while_they_are_needed(api, source_of, pauses):
    api.put(named("alice", "192.0.2.1"))
    api.put({**named("another"), "status": {"addresses": "none"}})
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


async def test_an_earlier_runs_addresses_are_used_until_nodes_are_listed(api, source_of, pauses):
    api.put(named("bob", "192.0.2.2"))
    source = source_of(api, pause=pauses)
    source.resume(Snapshot({}, node_addresses=frozenset({"192.0.2.9"})))
    source.want_nodes(True)
    async with running(source) as published:
        await published.until(lambda s: s.node_addresses == {"192.0.2.2"})
    assert [s.node_addresses for s in published.snapshots[:-1]] in ([], [{"192.0.2.9"}])


async def test_an_earlier_runs_addresses_are_used_until_the_first_plan(api, source_of, pauses):
    api.put(named("alice", "192.0.2.1"))
    source = source_of(api, node_name="alice", pause=pauses)
    source.resume(Snapshot({}, node_addresses=frozenset({"192.0.2.9"})))
    async with running(source) as published:
        snapshot = await published.until(lambda s: s.node is not None)
    assert snapshot.node_addresses == {"192.0.2.9"}


async def test_node_addresses_are_unknown_while_unneeded(api, source_of, pauses):
    api.put(named("bob", "192.0.2.2"))
    source = source_of(api, pause=pauses)
    source.resume(Snapshot({}, node_addresses=frozenset({"192.0.2.9"})))
    source.want_nodes(False)
    async with running(source) as published:
        await published.until(lambda s: s.node_addresses is None)
        source.want_nodes(True)
        await published.until(lambda s: s.node_addresses == {"192.0.2.2"})
        source.want_nodes(False)
        pauses.end()
        await published.until(lambda s: s.node_addresses is None)


@pytest.mark.parametrize(
    ("codes", "is_unknown"),
    [([403], False), ([403, 403], True), ([403, 503, 403], False), ([503, 503], False)],
)
async def test_node_addresses_become_unknown_only_after_two_consecutive_denials(
    api, source_of, codes, is_unknown
):
    are_denied = asyncio.Event()

    async def pause(seconds):
        if seconds == EVERY_S:
            await are_denied.wait()
        await asyncio.sleep(0)  # noqa: TID251 - one turn of the loop

    source = source_of(api, pause=pause)
    source.want_nodes(True)
    api.put(named("bob", "192.0.2.2"))
    async with running(source) as published:
        await published.until(lambda s: s.node_addresses == {"192.0.2.2"})
        api.put(named("bob", "192.0.2.3"))
        for code in codes:
            api.refuse("nodes", code)
        are_denied.set()
        await published.until(lambda s: s.node_addresses == {"192.0.2.3"})
    seen = [s.node_addresses for s in published.snapshots]
    assert (None in seen[seen.index({"192.0.2.2"}) :]) is is_unknown


async def test_denials_separated_by_a_successful_list_keep_the_node_addresses(
    api, source_of, pauses
):
    source = source_of(api, pause=pauses)
    source.want_nodes(True)
    api.put(named("bob", "192.0.2.1"))
    async with running(source) as published:
        await published.until(lambda s: s.node_addresses == {"192.0.2.1"})
        for ip in ("192.0.2.2", "192.0.2.3"):
            api.refuse("nodes", 403)
            requests = len(lists_of_all(api))
            pauses.end()
            await api.until(lambda a, before=requests: len(lists_of_all(a)) > before)
            api.put(named("bob", ip))
            pauses.end()
            await published.until(lambda s, ip=ip: s.node_addresses == {ip})
    listed = [s.node_addresses for s in published.snapshots]
    assert None not in listed[listed.index({"192.0.2.1"}) :]
