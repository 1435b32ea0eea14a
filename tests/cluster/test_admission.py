"""Manifests accept exactly what an API server accepts."""

from __future__ import annotations

import copy
import http
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from tests.unit.sources.drawn import Object
from tests.unit.sources.same_objects import of_manifests, of_one_service, seen
from userspace_proxy.sources.manifests.objects import ManifestReader

from .api_client import Api, Here
from .build import Binaries
from .control_plane import ControlPlane
from .same_objects import Objects, written_objects

pytestmark = pytest.mark.cluster

PORT: dict[str, Any] = {"name": "http", "port": 80}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default"},
    "spec": {"selector": {"app": "web"}, "ports": [PORT]},
}
SLICE: dict[str, Any] = {
    "apiVersion": "discovery.k8s.io/v1",
    "kind": "EndpointSlice",
    "metadata": {
        "name": "web-1",
        "namespace": "default",
        "labels": {"kubernetes.io/service-name": "web"},
    },
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["10.244.1.7"]}],
    "ports": [{"name": "http", "port": 8080}],
}
OF_POLICY = (
    "may not be in the loopback range",
    "may not be in the link-local range",
    "should be a domain with at least two segments",
)
"""Messages about endpoints that policy excludes here, or that only embedded proxies accept."""
OF_THE_CLUSTER = (
    "is not in the valid range",
    "not configured on this cluster",
    "not configured for dual-stack",
)
"""Messages about settings of this API server that other API servers lack."""
DIFFERENT = (
    # A dry run skips the allocator, which would reject these node ports.
    "ports.0.nodePort=-1",
    "ports.0.nodePort=65536",
    # Policy excludes these addresses for another reason; loopback is allowed for embedded proxies.
    "addresses=['127.0.0.1']",
    "addresses=['0.0.0.0']",
    "addresses=['224.0.0.1']",
    "addresses=['169.254.1.1']",
    # No client could be served on these ports.
    "ports.0.port=0",
    "ports.0.port=-1",
    "ports.0.port=65536",
    # The manifest reader skips unused fields of endpoints, of which there may be thousands.
    "zone=5",
)
"""The endings of the names of variants that are expected to differ."""

# fmt: off
WORDS: tuple[Any, ...] = ("", None, "x", "Cluster", "Local", "None", 5, True, [], {})
BOOLS: tuple[Any, ...] = (True, False, None, "true", "", 1)
NAMES: tuple[Any, ...] = ("a", "A", "a.b", "-a", "a-", "a/b", "a.b/c", "", None, "é", "a" * 64, 5)
NUMBERS: tuple[Any, ...] = (0, -1, 1, 80, 65535, 65536, 80.5, "80", "", None, True, 1 << 40)
ADDRESSES: tuple[Any, ...] = (
    "", "None", "10.96.7.7", "10.96.7", "010.0.0.1", "fd00::1", "::ffff:10.96.0.7", "127.0.0.1",
    "0.0.0.0", "224.0.0.1", "169.254.1.1", "198.51.100.7", "x", 5, None,
)

OF_SPEC: dict[str, tuple[Any, ...]] = {
    "type": (*WORDS, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
    "sessionAffinity": (*WORDS, "ClientIP"),
    "internalTrafficPolicy": WORDS,
    "externalTrafficPolicy": WORDS,
    "ipFamilyPolicy": (*WORDS, "SingleStack", "PreferDualStack", "RequireDualStack"),
    "trafficDistribution": (*WORDS, "PreferClose", "PreferSameZone", "PreferSameNode"),
    "loadBalancerClass": NAMES,
    "loadBalancerIP": ADDRESSES,
    "externalName": NAMES,
    "clusterIP": ADDRESSES,
    "clusterIPs": ([], [""], ["None"], ["10.96.7.7"], ["x"], None, "10.96.7.7"),
    "externalIPs": (*([address] for address in ADDRESSES), [], None, "198.51.100.7"),
    "ipFamilies": (["IPv4"], ["IPv6"], ["IPv4", "IPv4"], ["x"], [""], [], None, "IPv4"),
    "selector": ({}, None, {"A": "b"}, {"a/b": ""}, {"": "x"}, {"a b": "x"}, {"a": "b c"},
                 [], {"a": 5}),
    "publishNotReadyAddresses": BOOLS,
    "allocateLoadBalancerNodePorts": BOOLS,
    "healthCheckNodePort": NUMBERS,
    "loadBalancerSourceRanges": ([], ["10.0.0.0/8"], ["10.0.0.1"], ["x"], None, "10.0.0.0/8"),
    "sessionAffinityConfig": (
        None, {}, {"clientIP": {}}, {"clientIP": {"timeoutSeconds": 0}},
        {"clientIP": {"timeoutSeconds": 86401}}, {"clientIP": {"timeoutSeconds": 60}}, {"x": 1},
    ),
    "ports": ([], None, {}, [{}], [PORT, PORT], [PORT, {"port": 81}],
              [PORT, {"name": "x", "port": 81}]),
    "unknown": (1,),
}
OF_PORT: dict[str, tuple[Any, ...]] = {
    "name": NAMES,
    "port": NUMBERS,
    "protocol": ("", None, "TCP", "UDP", "SCTP", "tcp", "x", 6),
    "targetPort": (*NUMBERS, "8080", "http", "HTTP", "-a", "a-", "a--b", "a" * 15,
                   "a" * 16, "a1", "a.b", {}),
    "nodePort": (*NUMBERS, 30080),
    "appProtocol": (*NAMES, "kubernetes.io/h2c"),
    "unknown": (1,),
}
OF_METADATA: dict[str, tuple[Any, ...]] = {
    "name": (*NAMES, "9a", "a9"),
    "generateName": ("web-", "", "Web", None, 5),
    "labels": ({}, None, {"a": "b"}, {"a": ""}, {"a": None}, {"a b": "c"},
               {"a": "b c"}, {"a/b/c": ""}, {"a": 5}, {"a": True}, []),
    "annotations": ({}, None, {"a": "any text, é"}, {"A": "x"}, {"a b": "c"}, {"a": 5}, []),
    "finalizers": ([], ["x"], ["a.b/c"], "x"),
}
TYPES = ("ClusterIP", "NodePort", "LoadBalancer")
# fmt: on
OF_SLICE: dict[str, tuple[Any, ...]] = {
    "addressType": ("", None, "IPv6", "FQDN", "x", 4),
    "endpoints": ([], None, {}, [{}], [{"addresses": []}], [{"addresses": None}]),
    "ports": (
        [],
        None,
        {},
        [{}],
        [{"port": 80}, {"port": 81}],
        [{"name": "a"}, {"name": "a"}],
        [{"name": "a"}, {"port": 81}],
    ),
    "unknown": (1,),
}
OF_ENDPOINT: dict[str, tuple[Any, ...]] = {
    "addresses": (*([address] for address in ADDRESSES), ["10.244.1.7", "10.244.1.8"]),
    "conditions": ({}, None, {"ready": "true"}, {"ready": None}, {"x": True}),
    "hostname": NAMES,
    "nodeName": NAMES,
    "zone": NAMES,
    "hints": ({}, None, {"forZones": []}, {"forZones": [{"name": "a"}]}, {"forZones": [{}]}),
    "targetRef": ({}, None, {"kind": "Pod", "name": "a"}, {"kind": 5}, {"x": 1}),
    "unknown": (1,),
}
OF_SLICE_PORT: dict[str, tuple[Any, ...]] = {
    "name": NAMES,
    "port": NUMBERS,
    "protocol": OF_PORT["protocol"],
    "appProtocol": OF_PORT["appProtocol"],
    "unknown": (1,),
}
PATHS = {
    "Service": "/api/v1/namespaces/default/services",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
}

Variant = tuple[str, dict[str, Any]]


def variants(
    base: dict[str, Any], of: dict[str, tuple[Any, ...]], *path: str | int
) -> Iterator[Variant]:
    """Yield variants of an object, each with one changed field, and their names."""
    for key, values in of.items():
        for value in values:
            made = copy.deepcopy(base)
            container: Any = made
            for step in path:
                container = container[step]
            container[key] = value
            yield f"{'.'.join(map(str, path))}.{key}={value!r}", made


def services() -> Iterator[Variant]:
    """Yield variants of a Service of each type."""
    yield from variants(SERVICE, OF_METADATA, "metadata")
    for type_ in TYPES:
        base = copy.deepcopy(SERVICE)
        base["spec"]["type"] = type_
        for name, service in (
            *variants(base, OF_SPEC, "spec"),
            *variants(base, OF_PORT, "spec", "ports", 0),
        ):
            yield f"{type_} {name}", service


def slices() -> Iterator[Variant]:
    """Yield variants of an EndpointSlice."""
    of_metadata = {key: values for key, values in OF_METADATA.items() if key != "labels"}
    yield from variants(SLICE, of_metadata, "metadata")
    yield from variants(SLICE, OF_SLICE)
    yield from variants(SLICE, OF_ENDPOINT, "endpoints", 0)
    yield from variants(SLICE, OF_SLICE_PORT, "ports", 0)


def refused_reason(api: Api, item: dict[str, Any]) -> str:
    """Return why the API server would reject an object; empty if it accepts the object."""
    path = f"{PATHS[item['kind']]}?dryRun=All&fieldValidation=Strict"
    status, answer = api.request("POST", path, item)
    return "" if status < http.HTTPStatus.BAD_REQUEST else str(answer["message"])


def why_refused_here(item: dict[str, Any]) -> str:
    """Return why this program rejects an object in a manifest; empty if it accepts the object."""
    return "; ".join(ManifestReader("web.json").read(json.dumps(item)).problems)


@pytest.fixture(scope="module")
def control_plane(cluster_binaries: Binaries) -> Iterator[ControlPlane]:
    """A control plane with Services of both families."""
    cidrs = "10.96.0.0/16,fd00:96::/108"
    with ControlPlane(cluster_binaries, service_cidr=cidrs) as control_plane:
        yield control_plane


@pytest.mark.parametrize("objects", [services, slices])
def test_manifests_reject_the_same_objects_as_the_api_server_apart_from_listed_differences(
    control_plane: ControlPlane, objects: Callable[[], Iterator[Variant]]
) -> None:
    api = Api(Here(), control_plane)
    differences = []
    for name, item in objects():
        there, here = refused_reason(api, item), why_refused_here(item)
        is_known = any(why in there for why in OF_THE_CLUSTER) or name.endswith(DIFFERENT)
        if bool(there) != bool(here) and not is_known:
            differences.append(f"{name}: there {there or 'accepted'}; here {here or 'accepted'}")
    api.close()
    assert differences == []


@pytest.fixture(scope="module")
def stored_objects(control_plane: ControlPlane) -> Iterator[Objects]:
    objects = Objects(control_plane)
    yield objects
    objects.close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize(
    "count", [pytest.param(4, id="few"), pytest.param(40, id="many", marks=pytest.mark.long)]
)
def test_equal_objects_yield_equal_plans_causes_and_texts_from_both_sources(
    stored_objects: Objects, count: int
) -> None:
    # Generate without shrinking, because each example changes the server's objects.
    @settings(phases=[Phase.generate], max_examples=count)
    @given(written_objects())
    def is_same(objects: list[Object]) -> None:
        kept = stored_objects.replace(objects)
        for item, why in kept.refused:
            is_known = any(words in why for words in OF_POLICY)
            assert is_known or why_refused_here(item), (item, why)
        from_server = stored_objects.all()
        services = [*from_server.snapshot.services]
        expected = {key: seen(from_server, key) for key in services}
        for written in (kept.accepted, kept.stored):
            from_files = of_manifests(written)
            assert from_files.rejected == from_server.rejected == []
            assert {key: seen(from_files, key) for key in services} == expected
            assert from_files.facts == from_server.facts
        # The plans include host names for DNS, which shows that both sources read the same objects.
        assert from_files.snapshot == stored_objects.all(with_headless=True).snapshot
        for key in services:
            # Reading one Service omits other namespaces' Services, which may use the same address.
            assert seen(stored_objects.one(key), key) == seen(of_one_service(kept.stored, key), key)

    is_same()
