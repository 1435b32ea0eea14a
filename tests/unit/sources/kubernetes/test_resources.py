"""Objects of one kind, from JSON to the store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from userspace_proxy.cluster import Store
from userspace_proxy.cluster.from_pods import PodEndpoints
from userspace_proxy.facts import RejectedFacts
from userspace_proxy.model import Node
from userspace_proxy.sources.kubernetes.resources import (
    SERVICES,
    SLICES,
    ResourceCache,
    inside,
    metadata_of,
    resources_of,
    slices,
    this_node,
)
from userspace_proxy.sources.kubernetes.shares import (
    NAME_BYTES,
    OBJECT_BYTES,
    PART_BYTES,
    SERVICE_BYTES,
    Excess,
    ObjectShares,
)

from .objects import WEB, endpoint_slice, node, service


def raw(item: dict[str, Any], version: str = "1001") -> bytes:
    metadata = {"namespace": "default", **item["metadata"], "resourceVersion": version}
    return json.dumps({**item, "metadata": metadata}).encode()


def put(cache: ResourceCache, item: bytes, **options: bool) -> str | None:
    """Put an object as a watch does; return its resourceVersion."""
    metadata = metadata_of(item)
    cache.put(item, metadata, **options)
    return metadata.resource_version


def delete(cache: ResourceCache, item: bytes) -> str | None:
    metadata = metadata_of(item)
    cache.delete(item, metadata)
    return metadata.resource_version


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def services(store):
    return ResourceCache(SERVICES, store)


def names(store: Store) -> list[str]:
    return sorted(key.name for key in store.snapshot().services)


def test_objects_of_an_interrupted_list_are_deleted_if_the_next_list_lacks_them(store, services):
    services.begin_list()
    services.list_items([raw(service("web")), raw(service("cart", "10.96.7.2"))])
    services.begin_list()
    services.list_items([raw(service("web"))])
    services.end_list()
    assert names(store) == ["web"]


def test_a_list_deletes_missing_objects_and_keeps_unchanged_objects(store, services):
    for name in ("web", "cart"):
        put(services, raw(service(name)))
    before = store.snapshot().services[WEB]
    services.begin_list()
    services.list_items([raw(service("web"), "1009")])
    services.list_items([raw(service("db"))])
    assert names(store) == ["cart", "db", "web"]
    services.end_list()
    assert names(store) == ["db", "web"]
    assert store.snapshot().services[WEB] is before


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        pytest.param({"ports": [{"port": 0}]}, "spec.ports[0].port: 0 is not in", id="value"),
        pytest.param({"ports": "http"}, "spec.ports: expected list, got str", id="type"),
    ],
)
def test_an_invalid_object_is_reported_and_its_last_valid_version_is_kept(
    store, services, spec, problem
):
    put(services, raw(service()))
    before = store.snapshot()
    assert put(services, raw(service(**spec), "1002")) == "1002"
    [reported] = services.rejected.values()
    assert reported.line.startswith(f"Service default/web: {problem}")
    services.begin_list()
    services.list_items([raw(service(**spec))])
    services.end_list()
    assert store.snapshot() is before
    put(services, raw(service()))
    assert services.rejected == {}


def test_the_problem_of_a_deleted_object_is_removed(services):
    bad = raw(service(ports=[{"port": 0}]))
    put(services, bad)
    delete(services, bad)
    assert services.rejected == {}
    put(services, bad)
    services.begin_list()
    services.end_list()
    assert services.rejected == {}


def test_an_object_without_metadata_is_reported(services):
    assert put(services, b'{"metadata": 7}') is None
    place, problem = "Service (without a name)", "metadata: expected mapping, got int"
    assert list(services.rejected.values()) == [RejectedFacts.at(place, problem)]


def test_the_first_rejected_objects_are_sorted_by_name(services):
    for name in ("c", "a", "d", "b"):
        put(services, raw(service(name, ports=[{"port": 0}])))
    put(services, raw(service("a")))
    found = [item.object for item in services.first_rejected(2)]
    assert found == ["Service default/b", "Service default/c"]


def test_a_problem_names_the_affected_service(store, services):
    put(services, raw(service(ports=[{"port": 0}])))
    of_slices = ResourceCache(SLICES, store)
    put(of_slices, raw({**endpoint_slice(), "ports": 7}))
    found = [*services.rejected.values(), *of_slices.rejected.values()]
    assert [(item.object, item.services) for item in found] == [
        ("Service default/web", ("default/web",)),
        ("EndpointSlice default/web-1", ("default/web",)),
    ]


@pytest.mark.parametrize(
    ("resource", "count"),
    [pytest.param(SLICES, 0, id="without"), pytest.param(slices(with_headless=True), 1, id="with")],
)
def test_endpoints_of_slices_with_the_headless_label_are_skipped_by_default(store, resource, count):
    put(ResourceCache(SERVICES, store), raw(service()))
    item = endpoint_slice("10.244.1.7")
    item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    put(ResourceCache(resource, store), raw(item))
    (read,) = store.snapshot().services[WEB].slices
    assert (read.is_headless, len(read.endpoints)) == (True, count)


@pytest.mark.parametrize("full", [False, True])
def test_slices_with_the_headless_label_are_read_even_with_endpoints_from_pods(store, full):
    pods = PodEndpoints(store, with_headless=full)
    services, slices_, _ = resources_of(with_headless=full, with_pods=full, pods=pods)
    put(ResourceCache(services, store), raw(service()))
    item = endpoint_slice("10.244.1.7")
    item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    item["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": ".."}
    put(ResourceCache(slices_, store), raw(item))
    pods.settle()
    (read,) = store.snapshot().services[WEB].slices
    assert (read.is_headless, len(read.notes)) == (True, full)


@pytest.mark.parametrize(("name", "notes"), [("web-7", 0), ("..", 1)])
def test_invalid_pod_references_are_noted_only_if_pods_are_needed(store, name, notes):
    put(ResourceCache(SERVICES, store), raw(service()))
    item = endpoint_slice("10.244.1.7")
    item["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": name}
    for with_pods in (False, True):
        put(ResourceCache(slices(with_pods=with_pods), store), raw(item))
        (read,) = store.snapshot().services[WEB].slices
        assert [endpoint.pod for endpoint in read.endpoints] == [name.strip(".")]
        assert len(read.notes) == with_pods * notes


def test_a_resource_is_listed_in_one_namespace_or_in_all_namespaces():
    assert inside(SERVICES, "").path == "/api/v1/services"
    assert inside(SERVICES, "shop").path == "/api/v1/namespaces/shop/services"
    assert inside(SERVICES, "shop").path_of_one == "/api/v1/namespaces/shop/services"
    assert inside(SERVICES, "a/../b").path == "/api/v1/namespaces/a%2F..%2Fb/services"


def test_this_nodes_object_is_selected_by_name_and_an_empty_list_removes_it(store):
    nodes = ResourceCache(this_node("alice"), store)
    assert nodes.resource.query == {"fieldSelector": "metadata.name=alice"}
    alice = json.dumps(node()).encode()
    put(nodes, alice)
    assert store.snapshot().node == Node("alice", zone="east")
    nodes.begin_list()
    nodes.end_list()
    assert store.snapshot().node is None


ONE_SERVICE = SERVICE_BYTES + OBJECT_BYTES + PART_BYTES
"""The weight of a Service with one port."""


def crowd(store: Store, limit: int = 10) -> ResourceCache:
    return ResourceCache(SERVICES, store, ObjectShares(limit * ONE_SERVICE))


def elsewhere(name: str) -> bytes:
    item = service(name)
    return raw({**item, "metadata": {"name": name, "namespace": "shop"}})


def test_a_namespaces_excess_objects_are_omitted_without_affecting_other_namespaces(store):
    services = crowd(store)
    services.begin_list()
    items = [raw(service(f"web-{n:02}")) for n in range(13)]
    services.list_items([*items, elsewhere("cart")])
    services.end_list()
    assert names(store) == ["cart", *(f"web-{n:02}" for n in range(10))]
    size = sum(map(len, items[10:]))
    assert list(services.left_out()) == [("default", Excess(3, size))]


def test_the_next_list_in_any_order_keeps_the_same_objects_within_the_limit(store):
    services = crowd(store)
    items = [raw(service(f"web-{n:02}")) for n in range(13)]
    for order in (items, items[::-1], items[5:] + items[:5]):
        services.begin_list()
        services.list_items(order)
        services.end_list()
        assert names(store) == [f"web-{n:02}" for n in range(10)]
        assert [left_out.objects for _, left_out in services.left_out()] == [3]


def test_objects_added_by_a_watch_do_not_exceed_the_share_of_a_namespace(store):
    services = crowd(store)
    for n in range(12):
        assert put(services, raw(service(f"web-{n:02}"), f"{n}")) == f"{n}"
    put(services, raw(service("web-11")), is_new=False)
    assert names(store) == [f"web-{n:02}" for n in range(10)]
    assert [left_out.objects for _, left_out in services.left_out()] == [2]
    delete(services, raw(service("web-11")))
    assert [left_out.objects for _, left_out in services.left_out()] == [1]
    assert not services.has_room
    for n in range(2):
        delete(services, raw(service(f"web-{n:02}")))
    assert services.has_room
    put(services, raw(service("web-10")), is_new=False)
    assert list(services.left_out()) == []
    assert "web-10" in names(store)


def test_an_object_that_grew_too_large_is_no_longer_served(store):
    services = crowd(store)
    put(services, raw(service()))
    ports = [{"name": f"p{n}", "port": n} for n in range(1, 300)]
    put(services, raw(service(ports=ports)), is_new=False)
    assert names(store) == []
    assert [left_out.objects for _, left_out in services.left_out()] == [1]


def test_the_number_of_recorded_unreadable_objects_is_limited_by_the_share(store):
    services = crowd(store)
    for n in range(80):
        put(services, raw(service(f"web-{n:02}", ports="http")))
    assert len(services.rejected) == 10 * ONE_SERVICE // OBJECT_BYTES


@pytest.mark.parametrize(
    ("resource", "item", "least", "parts"),
    [
        (
            SERVICES,
            service(selector={"a": "b", "c": "d"}, externalIPs=["192.0.2.1"]),
            SERVICE_BYTES + OBJECT_BYTES,
            4,
        ),
        (SLICES, endpoint_slice("10.0.0.1", "10.0.0.2"), OBJECT_BYTES, 3),
    ],
)
def test_an_objects_size_counts_only_its_stored_fields(store, resource, item, least, parts):
    for room, kept in ((parts, 1), (parts - 1, 0)):
        cache = ResourceCache(resource, Store(), ObjectShares(least + PART_BYTES * room))
        put(cache, raw(item))
        assert sum(left_out.objects for _, left_out in cache.left_out()) == 1 - kept


def test_the_names_of_an_endpoint_count_only_beyond_their_included_size(store):
    item = endpoint_slice("10.0.0.1")
    item["endpoints"][0] |= {"nodeName": "n" * NAME_BYTES, "hostname": ""}
    usual = OBJECT_BYTES + 2 * PART_BYTES
    for hostname, limit, kept in (("", usual, 1), ("web", usual, 0), ("web", usual + 12, 1)):
        item["endpoints"][0]["hostname"] = hostname
        cache = ResourceCache(SLICES, Store(), ObjectShares(limit))
        put(cache, raw(item))
        assert sum(left_out.objects for _, left_out in cache.left_out()) == 1 - kept
