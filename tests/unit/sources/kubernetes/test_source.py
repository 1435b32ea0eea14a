"""The API server as a source: contract, coalescing, problems and logs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.model import Node, Workload, WorkloadKind
from userspace_proxy.sources.base import ScaleDown, pause
from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from ...dataplane.waiting import turns
from ..running import Published, running
from .conftest import QUICK
from .contract import NODE_NAME, SourceContract, endpoints, ips
from .history_contract import HistoryCluster, HistoryContract
from .objects import endpoint_slice, pod, service

ALL = ("services", "endpointslices", "nodes")


class FakeCluster(HistoryCluster):
    def __init__(self, api: FakeApiServer) -> None:
        self._api = api

    async def put(self, item: dict[str, Any]) -> None:
        self._api.put(item)

    async def delete(self, kind: str, name: str) -> None:
        self._api.delete(kind, name)

    async def stop(self) -> None:
        await self._api.stop()

    async def start(self) -> None:
        await self._api.start()

    def source(self, **options) -> KubernetesSource:
        return KubernetesSource(master=self._api.url, node_name=NODE_NAME, timing=QUICK, **options)

    async def client(self) -> ApiClient:
        client = ApiClient(Credentials(master=self._api.url))
        await client.open()
        return client


@pytest.fixture
def cluster(api):
    return FakeCluster(api)


class TestContract(SourceContract):
    """The contract of every API server."""


class TestHistory(HistoryContract):
    """The contract of an API server's revisions."""


def watches_all(api: FakeApiServer) -> bool:
    return all(api.watch_count(resource) == 1 for resource in ALL)


async def test_without_a_node_name_no_node_is_requested(api, source_of):
    async with running(source_of(api)) as published:
        await published.first()
    assert [line for line in api.requests if "/nodes" in line] == []


async def test_nodes_with_names_like_a_missing_node_are_requested_once(api, source_of):
    async with running(source_of(api, node_name="alice")) as published:
        await published.until(lambda s: s.node == Node("alice", is_missing=True))
        before = len(api.requests)
        await turns(100)
        assert len(api.requests) == before


async def test_nodes_are_listed_even_while_endpoint_slice_requests_fail(api, source_of):
    """If Nodes were listed only later, everything would be planned twice."""
    api.refuse("endpointslices", 500, times=10**6)
    async with running(source_of(api, node_name="alice")):
        await api.until(lambda api: any("/nodes?limit=500" in line for line in api.requests))


async def test_the_first_snapshot_is_published_after_all_kinds_are_listed(api, source_of):
    api.put(service())
    api.refuse("endpointslices", 500, times=3)
    async with running(source_of(api)) as published:
        await published.first()
        assert api.watch_count("services") == 1
        assert len(published.snapshots) == 1


async def test_simultaneous_changes_are_published_in_at_most_three_snapshots(api, source_of):
    async with running(source_of(api, node_name="alice")) as published:
        await api.until(watches_all)
        for n in range(100):
            api.put(service(f"web-{n}", f"10.96.8.{n}"))
        await published.until(lambda s: len(s.services) == 100)
        assert len(published.snapshots) <= 3


async def test_restarting_watches_with_equal_objects_publishes_no_snapshot(api, source_of):
    api.put(service())
    source = source_of(api)
    async with running(source) as published:
        await api.until(lambda a: a.watch_count("services") == a.watch_count(ALL[1]) == 1)
        api.forget()
        api.end_watches()
        await api.until(lambda a: sum("watch" not in r for r in a.requests) == 4)
        api.put(endpoint_slice("10.244.1.7"))
        await published.until(lambda s: endpoints(s) == ["10.244.1.7"])
        assert len(published.snapshots) == 2
        assert source.status().restarts == 2


async def test_a_lasting_problem_is_reported_and_logged_once(api, source_of, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.sources")
    api.token = "secret"
    source = source_of(api, node_name="alice")
    async with running(source) as published:
        await api.until(lambda a: len(a.requests) >= 9)
        problem = (
            f"the API server at {api.url} rejected the credentials: Unauthorized "
            "(check --kubeconfig: none is given)"
        )
        assert source.status().problems == (problem,)
        assert not source.status().is_synced
        api.token = ""
        await published.first()
        assert source.status().problems == ()
    assert [record.message for record in caplog.records] == [
        f"cannot read cluster state: {problem}",
        "API server problems resolved",
    ]


async def test_a_recurring_problem_is_logged_at_most_once_a_minute(api, source_of, caplog):
    caplog.set_level(logging.WARNING, "userspace_proxy.sources")
    now = 0.0
    source = source_of(api, clock=lambda: now)

    def watches(api):
        return sum("services?watch" in line for line in api.requests)

    async def breaks():
        before = watches(api)
        api.send("services", b"garbage\n")
        await api.until(lambda a: watches(a) > before and a.watch_count("services") == 1)

    async with running(source) as published:
        await published.first()
        for _ in range(3):
            await api.until(lambda a: a.watch_count("services") == 1)
            await breaks()
        assert len(caplog.records) == 1
        now = 61.0
        await breaks()
    first, second = (record.message for record in caplog.records)
    assert first == second
    assert first.startswith("cannot read cluster state: invalid response from ")


async def test_services_are_served_without_permission_to_read_the_node(api, source_of):
    api.put(service())
    api.refuse("nodes", code=403, reason="Forbidden", message="nodes is forbidden", times=1000)
    source = source_of(api, node_name="alice")
    async with running(source) as published:
        snapshot = await published.first()
        assert ips(snapshot) == ("10.96.7.1",)
        assert snapshot.node is None
        assert "nodes is forbidden" in source.status().problems[0]
        assert source.status().is_current


async def test_services_do_not_wait_repeatedly_for_an_unreadable_node(api, source_of):
    api.put(service())
    api.refuse("nodes", code=403, reason="Forbidden", message="nodes is forbidden")
    api.refuse("nodes", code=503, times=1_000_000)
    source = source_of(api, node_name="alice")
    async with running(source) as published:
        await published.first()
        await api.until(lambda _: "503" in str(source.status().problems))
        api.put(service("web-2", ip="10.96.7.2"))
        await published.until(lambda s: len(s.services) == 2)


async def test_an_unreadable_object_is_logged_and_other_objects_are_served(api, source_of, caplog):
    caplog.set_level(logging.INFO, "userspace_proxy.sources")
    api.put(service("bad", ports=[{"port": "http"}]))
    api.put(service())
    source = source_of(api)
    async with running(source) as published:
        assert ips(await published.first()) == ("10.96.7.1",)
        [problem] = source.status().problems
        assert problem == "Service default/bad: spec.ports[0].port: expected int, got str"
        assert source.status().is_current
        api.put(service("bad"))
        await published.until(lambda s: len(s.services) == 2)
        assert source.status().problems == ()
    assert caplog.messages == [f"object not applied: {problem}", "object problems resolved"]


async def test_many_unreadable_objects_are_counted(api, source_of):
    for n in range(25):
        api.put(service(f"bad-{n:02}", ports=[{"port": 0}]))
    source = source_of(api)
    async with running(source) as published:
        await published.first()
        problems = source.status().problems
    assert len(problems) == 21
    assert problems[0] == "Service default/bad-00: spec.ports[0].port: 0 is not in 1–65535"
    assert problems[-1].startswith("… and 5 more objects")


async def test_a_source_that_cannot_start_raises_its_error(tmp_path):
    source = KubernetesSource(kubeconfig=str(tmp_path / "nothing"))
    with pytest.raises(SourceError, match="cannot read kubeconfig"):
        await source.run(Published())


async def test_the_location_names_the_configuration_until_the_server_url_is_known(api, tmp_path):
    assert KubernetesSource().location == "the API server of this pod"
    assert KubernetesSource(kubeconfig="/etc/kubeconfig").location == "/etc/kubeconfig"
    source = KubernetesSource(master=f"{api.url}/", timing=QUICK)
    async with running(source) as published:
        await published.first()
        assert source.location == api.url


async def test_stopping_a_source_closes_all_watches(api, source_of):
    async with running(source_of(api, node_name="alice")):
        await api.until(watches_all)
    await api.until(lambda a: not any(a.watch_count(resource) for resource in ALL))


@pytest.mark.parametrize("code", [500, 403])
async def test_a_snapshot_is_not_current_once_the_server_rejects_watches(api, source_of, code):
    api.put(service())
    source = source_of(api)
    async with running(source) as published:
        await published.first()
        assert source.status().is_current
        await api.until(lambda a: a.watch_count("services") == 1)
        api.refuse("services", code=code, reason="Any", message="broken", times=1000)
        api.end_watches()
        await api.until(lambda a: sum("services?watch" in r for r in a.requests) >= 3)
        status = source.status()
        assert (status.is_synced, status.is_current) == (True, False)


async def test_the_age_of_a_snapshot_is_the_age_of_its_most_outdated_resource(api, source_of):
    now = 1000.0
    api.put(service())
    source = source_of(api, clock=lambda: now)
    async with running(source) as published:
        await published.first()
        await api.until(lambda a: a.watch_count("services") == 1)
        api.refuse("services", code=403, reason="Any", message="forbidden", times=1000)
        api.end_watches()
        await api.until(lambda _: not source.status().is_current)
        now += 120.0
        api.put(endpoint_slice("10.244.0.3"))
        await published.until(endpoints)
        api.refuse("endpointslices", code=403, reason="Any", message="forbidden", times=1000)
        api.end_watches()
        await api.until(lambda _: len(source.status().problems) == 2)
        assert source.status().behind_s == 120.0


async def test_objects_read_by_an_earlier_run_are_reused(api, source_of):
    api.put(service())
    api.put(endpoint_slice("10.244.1.7"))
    api.put(service("cart", "10.96.7.2"))
    api.put(service("mail", "10.96.7.3"))
    api.put(endpoint_slice("10.244.1.8", name="mail-1", of="mail"))
    async with running(source_of(api)) as published:
        earlier = await published.first()
    api.delete("Service", "cart")
    api.delete("EndpointSlice", "mail-1")
    source = source_of(api)
    source.resume(earlier)
    async with running(source) as published:
        snapshot = await published.first()
    mail, web = sorted(snapshot.services)
    assert snapshot.services[web] is earlier.services[web]
    assert (endpoints(snapshot), endpoints(snapshot, mail.name)) == (["10.244.1.7"], [])


SELECTING = {
    "selector": {"app": "web"},
    "ports": [{"port": 80, "targetPort": "http"}],
}


async def test_endpoints_from_pods_follow_the_pods(api, source_of):
    api.put(service(**SELECTING))
    api.put(pod())
    source = source_of(api, endpoints_from_pods=True)
    async with running(source) as published:
        assert endpoints(await published.first()) == ["10.244.0.3"]
        api.put(pod("web-2", "10.244.0.4"))
        await published.until(lambda s: endpoints(s) == ["10.244.0.3", "10.244.0.4"])
        api.delete("Pod", "web-1")
        await published.until(lambda s: endpoints(s) == ["10.244.0.4"])
        assert source.status().is_current


async def test_the_first_snapshot_is_published_after_pods_are_listed(api, source_of):
    api.put(service(**SELECTING))
    api.put(pod())
    api.refuse("pods", 403, message="pods is forbidden")
    source = source_of(api, endpoints_from_pods=True)
    async with running(source) as published:
        assert endpoints(await published.first()) == ["10.244.0.3"]
        assert len(published.snapshots) == 1


async def test_a_missing_permission_to_read_pods_is_reported_with_a_remedy(api, source_of):
    api.refuse("pods", 403, message="pods is forbidden", times=1000)
    source = source_of(api, endpoints_from_pods=True)
    async with running(source):
        await api.until(lambda _: bool(source.status().problems))
        (problem,) = source.status().problems
        assert problem.endswith(
            "refuses to list pods: pods is forbidden (allow this user to get, list and watch pods)"
        )


async def test_slices_of_services_with_selectors_are_ignored_if_endpoints_come_from_pods(
    api, source_of
):
    api.put(service(**SELECTING))
    api.put(service("db", "10.96.7.2"))
    api.put(endpoint_slice("192.0.2.7"))
    api.put(endpoint_slice("192.0.2.8", name="db-1", of="db"))
    async with running(source_of(api, endpoints_from_pods=True)) as published:
        first = await published.first()
        assert endpoints(first) == []
        assert endpoints(first, "db") == ["192.0.2.8"]
        api.delete("EndpointSlice", "db-1")
        await published.until(lambda s: endpoints(s, "db") == [])
        api.delete("Service", "web")
        await published.until(lambda s: len(s.services) == 1)


async def test_a_pod_with_an_invalid_annotation_is_reported_and_keeps_its_state(api, source_of):
    api.put(service(**SELECTING))
    api.put(pod())
    source = source_of(api, endpoints_from_pods=True)
    async with running(source) as published:
        await published.first()
        api.put(pod(ip="10.244.0.9", annotations={"userspace-proxy.io/ports": "80"}))
        api.put(pod("web-2", "10.244.0.4"))
        last = await published.until(lambda s: "10.244.0.4" in endpoints(s))
        assert source.status().problems == (
            "Pod default/web-1: metadata.annotations[userspace-proxy.io/ports]: '80' is not of "
            "the form 8080=37741 or 53/UDP=40001",
        )
        assert endpoints(last) == ["10.244.0.3", "10.244.0.4"]


async def test_a_restart_with_endpoints_from_pods_publishes_the_same_objects(api, source_of):
    api.put(service(**SELECTING))
    api.put(pod())
    async with running(source_of(api, endpoints_from_pods=True)) as published:
        before = await published.first()
    again = source_of(api, endpoints_from_pods=True)
    again.resume(before)
    async with running(again) as published:
        after = await published.first()
    assert [*after.services.values()] == [*before.services.values()]
    assert all(after.services[key] is state for key, state in before.services.items())


async def test_a_source_that_has_not_started_scales_no_workload_and_reads_no_leases(api, source_of):
    async def agree():
        return True

    source = source_of(api, node_name="node-1")
    web = Workload(WorkloadKind.DEPLOYMENT, "web")
    assert await source.scale_down("shop", web, lambda _: None, agree) == ScaleDown()
    with pytest.raises(SourceError, match="no connection"):
        await source.leases("node-1", "").read("holder")
    assert api.requests == []


async def test_a_running_source_reads_leases(api, source_of):
    source = source_of(api, node_name="alice")
    async with running(source) as published:
        await published.first()
        assert await source.leases("alice", "").read("holder") is None


async def test_a_too_large_namespace_is_reported_and_other_namespaces_are_served(api, source_of):
    api.put(service())
    for n in range(9):
        item = service(f"web-{n}")
        api.put({**item, "metadata": {"name": f"web-{n}", "namespace": "shop"}})
    source = source_of(api, share_bytes=20 << 10)
    async with running(source) as published:
        snapshot = await published.first()
        assert sorted(map(str, snapshot.services)) == [
            "default/web",
            *("shop/web-0", "shop/web-1", "shop/web-2"),
        ]
        [problem] = source.status().problems
        assert problem.startswith("namespace shop: at least 4 Services with 1.0 kB of JSON left ")
        assert source.status().is_current
        for n in range(9):
            api.delete("Service", f"web-{n}", "shop")
        await published.until(lambda s: len(s.services) == 1)
        while source.status().problems:
            await pause(0)


async def test_omitted_objects_are_listed_once_the_namespace_has_room(api, source_of):
    for n in range(5):
        api.put(service(f"web-{n}"))
    source = source_of(api, share_bytes=20 << 10)
    async with running(source) as published:
        await published.first()
        for n in range(3):
            api.delete("Service", f"web-{n}")
        await published.until(lambda s: not s.services)
        api.end_watches()
        await published.until(
            lambda s: sorted(key.name for key in s.services) == ["web-3", "web-4"]
        )
        while source.status().problems:
            await pause(0)
