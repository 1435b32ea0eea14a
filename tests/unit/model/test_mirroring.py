"""Tests of mirroring Endpoints objects into slices."""

from __future__ import annotations

import pytest

from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    IPFamily,
    ServiceKey,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.mirroring import (
    left_out_reason,
    mirror_endpoints,
    mirrored_name,
    not_mirrored_reason,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.wire import FieldError, WireEndpoints, convert

WEB = ServiceKey("shop", "web")
HTTP = {"name": "http", "port": 8080}
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"


def endpoints(*subsets: dict[str, object], **metadata: object) -> WireEndpoints:
    whole = {"name": "web", "namespace": "shop", **metadata}
    return convert({"metadata": whole, "subsets": list(subsets)}, WireEndpoints)


def test_each_subset_is_mirrored_into_a_slice_per_family():
    wire = endpoints(
        {
            "addresses": [
                {"ip": "10.244.1.7", "nodeName": "alice", "hostname": "web-0"},
                {"ip": "fd00::7"},
            ],
            "notReadyAddresses": [{"ip": "10.244.1.8"}],
            "ports": [HTTP, {"name": "dns", "port": 53, "protocol": "UDP"}],
        },
        {"addresses": [{"ip": "10.244.2.7"}], "ports": [{"port": 80}]},
    )
    ports = (SlicePort("http", 8080, "TCP"), SlicePort("dns", 53, "UDP"))
    assert mirror_endpoints(wire) == [
        EndpointSlice(
            SliceKey("shop", "web:0:IPv4"),
            WEB,
            IPFamily.IPV4,
            ports,
            (
                Endpoint("10.244.1.7", node="alice", hostname="web-0"),
                Endpoint("10.244.1.8", ready=False, serving=False),
            ),
        ),
        EndpointSlice(
            SliceKey("shop", "web:0:IPv6"), WEB, IPFamily.IPV6, ports, (Endpoint("fd00::7"),)
        ),
        EndpointSlice(
            SliceKey("shop", "web:1:IPv4"),
            WEB,
            IPFamily.IPV4,
            (SlicePort("", 80, "TCP"),),
            (Endpoint("10.244.2.7"),),
        ),
    ]


def test_without_subsets_no_slices_are_mirrored():
    assert mirror_endpoints(endpoints()) == []


@pytest.mark.parametrize(
    ("subset", "problem"),
    [
        (
            {"addresses": [{"ip": "10.244.1.7"}, {"ip": "web"}]},
            "subsets[0].addresses[1].ip: 'web' is not an IP address",
        ),
        ({"notReadyAddresses": [{}]}, "subsets[0].notReadyAddresses[0].ip: is missing"),
        ({"ports": [{"port": 70000}]}, "subsets[0].ports[0].port: 70000 is not in"),
        (
            {"ports": [HTTP, {"port": 81}]},
            "subsets[0].ports[1].name: is missing: one of several ports needs a name",
        ),
    ],
)
def test_an_invalid_value_is_rejected_and_its_field_reported(subset, problem):
    with pytest.raises(FieldError) as caught:
        mirror_endpoints(endpoints(subset))
    assert str(caught.value).startswith(problem)


def test_all_errors_of_an_object_are_reported_together():
    addresses = [{"ip": "x"}, {"ip": "10.244.1.7"}, {"ip": "y"}]
    with pytest.raises(FieldError) as caught:
        mirror_endpoints(endpoints({"addresses": addresses, "ports": [{"port": 0}]}))
    paths = [error.path for error in (caught.value, *caught.value.others)]
    assert paths == [
        "subsets[0].ports[0].port",
        "subsets[0].addresses[0].ip",
        "subsets[0].addresses[2].ip",
    ]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        pytest.param({}, "", id="plain"),
        pytest.param({"labels": {SKIP: "true"}}, f"label {SKIP}", id="skip-label"),
        pytest.param({"labels": {SKIP: "false"}}, "", id="label-without-effect"),
        pytest.param({"annotations": {LEADER: "{}"}}, f"annotation {LEADER}", id="lock"),
    ],
)
def test_locks_and_endpoints_labelled_skip_mirror_are_not_mirrored(metadata, expected):
    why = not_mirrored_reason(endpoints(**metadata))
    assert why == (NoteKind.NOT_TO_MIRROR("shop/web", expected) if expected else None)


def test_annotations_of_endpoints_apply_to_their_slices():
    annotations = {"userspace-proxy.io/weight": "5", "userspace-proxy.io/priority": "x"}
    wire = endpoints(
        {"addresses": [{"ip": "10.244.1.7"}], "ports": [HTTP]}, annotations=annotations
    )
    (item,) = mirror_endpoints(wire)
    assert item.endpoints == (Endpoint("10.244.1.7", weight=5),)
    key = "userspace-proxy.io/priority"
    why = "'x' is not in 0–65535"
    assert item.notes == (NoteKind.ANNOTATION_WRONG(key, why, "it has no effect"),)


def test_a_mirrored_slice_refers_to_its_endpoints_object():
    (item,) = mirror_endpoints(endpoints({"addresses": [{"ip": "10.244.1.7"}], "ports": [HTTP]}))
    assert mirrored_name(item.key) == "web"
    assert mirrored_name(SliceKey("shop", "web-x")) == ""


def test_ignored_endpoints_get_a_note_with_the_first_address_missing_from_slices():
    addresses = [{"ip": f"10.244.1.{number}"} for number in (7, 8, 9)]
    slices = mirror_endpoints(endpoints({"addresses": addresses, "ports": [HTTP]}))
    assert left_out_reason(slices, {"10.244.1.7", "10.244.1.8", "10.244.1.9"}) is None
    left_out = left_out_reason(slices, {"10.244.1.7"})
    assert left_out == NoteKind.LEFT_OUT_BESIDE("shop/web", "10.244.1.8")
