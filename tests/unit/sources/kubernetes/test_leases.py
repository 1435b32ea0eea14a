"""Leases on a fake API server: the contract, and failures."""

from __future__ import annotations

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.base import Lease
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.leases import KubernetesLeases
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from ..leases_contract import NODES, LeasesContract, LeasesOf
from .objects import node

NEEDED = (
    "create the namespace userspace-proxy, and allow this user to get, list, watch, create and "
    "update leases of coordination.k8s.io there, and to get and list nodes"
)


@pytest.fixture
async def leases_of(api: FakeApiServer, client: ApiClient) -> LeasesOf:
    for name in NODES:
        api.put({**node(name), "metadata": {"name": name, "uid": f"uid-of-{name}"}})
    return lambda name: KubernetesLeases(client, name, "", is_open=lambda: True)


class TestContract(LeasesContract):
    pass


async def test_a_lease_is_owned_by_its_node_which_is_requested_only_once(
    api: FakeApiServer, leases_of: LeasesOf
) -> None:
    leases = leases_of("node-1")
    lease = await leases.write(Lease("node.node-1"))
    assert lease is not None
    await leases.write(lease)
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "uid-of-node-1"}
    written = api._objects.get("leases", "node.node-1", "userspace-proxy")
    assert written is not None
    assert written["metadata"]["ownerReferences"] == [owner]
    assert api.requests.count("GET /api/v1/nodes/node-1") == 1


async def test_the_holders_lease_is_owned_by_no_node(
    api: FakeApiServer, leases_of: LeasesOf
) -> None:
    await leases_of("node-1").write(Lease("holder", "node-1"))
    written = api._objects.get("leases", "holder", "userspace-proxy")
    assert written is not None
    assert "ownerReferences" not in written["metadata"]
    assert written["spec"]["leaseDurationSeconds"] == 45


async def test_a_proxy_without_a_node_object_can_write_its_lease(
    api: FakeApiServer, leases_of: LeasesOf
) -> None:
    assert await leases_of("node-9").write(Lease("node.node-9")) is not None


async def test_a_lease_deleted_since_it_was_read_is_not_written(
    api: FakeApiServer, leases_of: LeasesOf
) -> None:
    leases = leases_of("node-1")
    lease = await leases.write(Lease("holder"))
    assert lease is not None
    api.delete("Lease", "holder", "userspace-proxy")
    assert await leases.write(lease) is None


async def test_proxies_with_different_names_have_separate_leases(client: ApiClient) -> None:
    ours = KubernetesLeases(client, "node-1", "", is_open=lambda: True)
    canary = KubernetesLeases(client, "node-1", "Canary_1", is_open=lambda: True)
    await ours.write(Lease("holder", "ours"))
    assert await canary.read("holder") is None
    assert await canary.write(Lease("holder", "canary")) is not None
    assert [lease.holder for lease in await ours.read_all()] == ["ours"]
    assert [(lease.name, lease.holder) for lease in await canary.read_all()] == [
        ("holder", "canary")
    ]
    assert [(await anext(one.follow("holder"))).holder for one in (ours, canary)] == [
        "ours",
        "canary",
    ]


@pytest.mark.parametrize("code", [403, 404])
async def test_a_rejected_lease_write_is_reported_with_the_required_permission(
    api: FakeApiServer, leases_of: LeasesOf, code: int
) -> None:
    api.refuse("leases", code, message="no")
    with pytest.raises(SourceError) as refused:
        await leases_of("node-1").write(Lease("holder"))
    assert str(refused.value) == (
        f"the API server at {api.url} refuses to write leases: no ({NEEDED})"
    )


async def test_rejected_lists_and_watches_are_errors(
    api: FakeApiServer, leases_of: LeasesOf
) -> None:
    api.refuse("leases", 500, message="no", times=2)
    with pytest.raises(SourceError, match=r"refuses to list leases: no$"):
        await leases_of("node-1").read_all()
    with pytest.raises(SourceError, match=r"refuses to watch leases: no$"):
        await anext(leases_of("node-1").follow("holder"))


async def test_an_unreachable_server_is_an_error(api: FakeApiServer, leases_of: LeasesOf) -> None:
    await api.stop()
    with pytest.raises(SourceError, match="cannot reach the API server"):
        await leases_of("node-1").read_all()
    with pytest.raises(SourceError, match="cannot reach the API server"):
        await anext(leases_of("node-1").follow("holder"))


async def test_following_a_lease_ends_when_the_watch_ends(
    api: FakeApiServer, leases_of: LeasesOf
) -> None:
    leases = leases_of("node-1")
    await leases.write(Lease("holder"))
    followed = leases.follow("holder")
    await anext(followed)
    api.end_watches()
    with pytest.raises(StopAsyncIteration):
        await anext(followed)


@pytest.mark.parametrize(
    "line",
    [
        b"{}\n",
        b"nonsense\n",
        b'{"type": "ADDED", "object": {}}\n',
        b'{"type": "ADDED", "object": {"metadata": {"name": "holder"}}}\n',
    ],
)
async def test_an_invalid_event_is_an_error(
    api: FakeApiServer, leases_of: LeasesOf, line: bytes
) -> None:
    leases = leases_of("node-1")
    await leases.write(Lease("holder"))
    followed = leases.follow("holder")
    await anext(followed)
    api.send("leases", line)
    with pytest.raises(SourceError, match=r"invalid response from .* for leases"):
        await anext(followed)


async def test_lease_access_before_the_source_runs_is_an_error_and_sends_no_requests(
    api: FakeApiServer, client: ApiClient
) -> None:
    leases = KubernetesLeases(client, "node-1", "", is_open=lambda: False)
    with pytest.raises(SourceError, match="no connection to the API server yet"):
        await leases.read("holder")
    with pytest.raises(SourceError, match="no connection to the API server yet"):
        await anext(leases.follow("holder"))
    assert api.requests == []
