"""Objects of one kind, from JSON into the store."""

from __future__ import annotations

import json
from typing import Any

import pytest

from userspace_proxy.cluster import Store
from userspace_proxy.cluster.from_pods import PodEndpoints
from userspace_proxy.facts import RejectedFacts
from userspace_proxy.model import Node, ServiceKey, SliceKey
from userspace_proxy.sources.kubernetes.resources import (
    SERVICES,
    SLICES,
    ResourceCache,
    inside,
    resources_of,
    slices,
    this_node,
)

from .objects import WEB, endpoint_slice, node, service


def raw(item: dict[str, Any], version: str = "1001") -> bytes:
    metadata = {"namespace": "default", **item["metadata"], "resourceVersion": version}
    return json.dumps({**item, "metadata": metadata}).encode()


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def services(store):
    return ResourceCache(SERVICES, store)


def names(store: Store) -> list[str]:
    return sorted(key.name for key in store.snapshot().services)


def test_objects_are_added_and_deleted_and_have_a_version(store, services):
    assert services.put(raw(service(), "1001")) == "1001"
    assert names(store) == ["web"]
    assert services.delete(raw(service(), "1002")) == "1002"
    assert names(store) == []


def test_a_list_deletes_what_it_does_not_name_and_keeps_what_is_equal(store, services):
    for name in ("web", "cart"):
        services.put(raw(service(name)))
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
def test_what_cannot_be_read_is_a_problem_and_keeps_what_was_read(store, services, spec, problem):
    services.put(raw(service()))
    before = store.snapshot()
    assert services.put(raw(service(**spec), "1002")) == "1002"
    [reported] = services.rejected.values()
    assert reported.line.startswith(f"Service default/web: {problem}")
    services.begin_list()
    services.list_items([raw(service(**spec))])
    services.end_list()
    assert store.snapshot() is before
    services.put(raw(service()))
    assert services.rejected == {}


def test_a_problem_ends_with_its_object(services):
    bad = raw(service(ports=[{"port": 0}]))
    services.put(bad)
    services.delete(bad)
    assert services.rejected == {}
    services.put(bad)
    services.begin_list()
    services.end_list()
    assert services.rejected == {}


def test_an_object_without_metadata_is_a_problem(services):
    assert services.put(b'{"metadata": 7}') is None
    place, problem = "Service (without a name)", "metadata: expected mapping, got int"
    assert list(services.rejected.values()) == [RejectedFacts.at(place, problem)]


def test_a_problem_has_the_service_that_it_is_about(store, services):
    services.put(raw(service(ports=[{"port": 0}])))
    of_slices = ResourceCache(SLICES, store)
    of_slices.put(raw({**endpoint_slice(), "ports": 7}))
    found = [*services.rejected.values(), *of_slices.rejected.values()]
    assert [(item.object, item.services) for item in found] == [
        ("Service default/web", ("default/web",)),
        ("EndpointSlice default/web-1", ("default/web",)),
    ]


def test_a_slice_that_serves_no_service_any_more_is_gone(store):
    ResourceCache(SERVICES, store).put(raw(service()))
    slices = ResourceCache(SLICES, store)
    slices.put(raw(endpoint_slice("10.244.1.7")))
    assert len(store.snapshot().services[WEB].slices) == 1
    unlabelled = endpoint_slice("10.244.1.7")
    del unlabelled["metadata"]["labels"]
    slices.put(raw(unlabelled))
    assert store.snapshot().services[WEB].slices == ()
    assert store.snapshot().orphans == {ServiceKey("default", ""): (SliceKey("default", "web-1"),)}


@pytest.mark.parametrize(
    ("resource", "count"),
    [pytest.param(SLICES, 0, id="without"), pytest.param(slices(with_headless=True), 1, id="with")],
)
def test_slices_of_headless_services_are_read_if_wanted(store, resource, count):
    ResourceCache(SERVICES, store).put(raw(service()))
    item = endpoint_slice("10.244.1.7")
    item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    ResourceCache(resource, store).put(raw(item))
    (read,) = store.snapshot().services[WEB].slices
    assert (read.is_headless, len(read.endpoints)) == (True, count)


def test_a_slice_with_the_headless_label_is_read_also_where_endpoints_are_pods(store):
    pods = PodEndpoints(store, with_headless=False)
    services, slices_, _ = resources_of(with_headless=False, pods=pods)
    ResourceCache(services, store).put(raw(service()))
    item = endpoint_slice("10.244.1.7")
    item["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    ResourceCache(slices_, store).put(raw(item))
    pods.settle()
    (read,) = store.snapshot().services[WEB].slices
    assert read.is_headless


@pytest.mark.parametrize(("name", "notes"), [("web-7", 0), ("..", 1)])
def test_endpoints_that_cannot_be_pods_are_noted_if_wanted(store, name, notes):
    ResourceCache(SERVICES, store).put(raw(service()))
    item = endpoint_slice("10.244.1.7")
    item["endpoints"][0]["targetRef"] = {"kind": "Pod", "name": name}
    for with_pods in (False, True):
        ResourceCache(slices(with_pods=with_pods), store).put(raw(item))
        (read,) = store.snapshot().services[WEB].slices
        assert [endpoint.pod for endpoint in read.endpoints] == [name.strip(".")]
        assert len(read.notes) == with_pods * notes


def test_a_resource_is_listed_in_one_namespace_or_in_all():
    assert inside(SERVICES, "").path == "/api/v1/services"
    assert inside(SERVICES, "shop").path == "/api/v1/namespaces/shop/services"
    assert inside(SERVICES, "a/../b").path == "/api/v1/namespaces/a%2F..%2Fb/services"


def test_the_node_is_one_object(store):
    nodes = ResourceCache(this_node("alice"), store)
    assert nodes.resource.query == {"fieldSelector": "metadata.name=alice"}
    alice = json.dumps(node()).encode()
    nodes.put(alice)
    assert store.snapshot().node == Node("alice", zone="east")
    nodes.begin_list()
    nodes.end_list()
    assert store.snapshot().node is None
