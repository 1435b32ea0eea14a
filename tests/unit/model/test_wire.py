"""Tests of decoding API objects, and of errors for invalid ones."""

import json
import sys

import msgspec
import pytest

from userspace_proxy.model.source_ranges import ANNOTATION_SOURCE_RANGES
from userspace_proxy.model.wire import (
    FieldError,
    Metadata,
    WireCondition,
    WireEndpoints,
    WireEndpointSlice,
    WireEvent,
    WireNode,
    WirePod,
    WireService,
    WireStatus,
    convert,
    decode,
    value_size,
)

from .documented import KINDS, METADATA, documented, fields_of, named_values

CART = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "cart", "namespace": "shop", "resourceVersion": "7", "uid": "1"},
    "spec": {
        "clusterIP": "198.51.100.7",
        "clusterIPs": ["198.51.100.7"],
        "externalIPs": ["203.0.113.9"],
        "selector": {"app": "cart"},
        "ports": [{"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080}],
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.8", "hostname": "lb"}]}},
}


def test_a_services_fields_are_decoded_by_their_api_names():
    wire = decode(json.dumps(CART).encode(), WireService)
    assert wire.metadata == Metadata("cart", "shop", "7", "1")
    assert wire.spec.cluster_ip == "198.51.100.7"
    assert wire.spec.cluster_ips == ["198.51.100.7"]
    assert wire.spec.external_ips == ["203.0.113.9"]
    assert (wire.spec.ports[0].port, wire.spec.ports[0].node_port) == (80, 30080)
    assert wire.spec.session_affinity_config.client_ip.timeout_seconds == 60
    assert wire.status.load_balancer.ingress[0].ip == "203.0.113.8"


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        (WireService, '{"spec": null, "status": null}'),
        (WireService, '{"metadata": {"name": null, "labels": null}}'),
        (
            WireService,
            '{"spec": {"ports": null, "clusterIPs": null, "sessionAffinityConfig": null}}',
        ),
        (WireEndpointSlice, '{"endpoints": null, "ports": null}'),
        (WireEndpointSlice, '{"endpoints": [{"conditions": null, "nodeName": null}]}'),
        (WireNode, '{"status": {"addresses": null}}'),
        (WireEndpoints, '{"subsets": [{"addresses": null}]}'),
    ],
)
def test_null_fields_are_read_as_missing(type_, text):
    bare = msgspec.to_builtins(decode(text.encode(), type_))
    assert "null" not in json.dumps(_without_nulls(bare))


def test_the_object_of_an_event_is_decoded_separately():
    event = decode(b'{"type": "ERROR", "object": {"code": 410, "reason": "Gone"}}', WireEvent)
    assert event.type == "ERROR"
    assert decode(event.object, WireStatus) == WireStatus(code=410, reason="Gone")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([], "expected mapping, got list"),
        ({"spec": []}, "spec: expected mapping, got list"),
        ({"spec": {"ports": [{"port": "80"}]}}, "spec.ports[0].port: expected int, got str"),
        ({"spec": {"ports": {"http": 80}}}, "spec.ports: expected list, got mapping"),
        ({"metadata": {"labels": {"app": 1}}}, "metadata.labels[...]: expected str, got int"),
        ({"metadata": None}, "metadata: expected mapping, got null"),
    ],
)
def test_a_wrong_type_is_reported_with_its_field(value, problem):
    for read in (lambda: convert(value, WireService), lambda: decode(_json(value), WireService)):
        with pytest.raises(FieldError) as caught:
            read()
        assert str(caught.value) == problem


def test_a_mapping_key_of_a_wrong_type_is_reported_with_the_mapping():
    with pytest.raises(FieldError) as caught:
        convert({"metadata": {"labels": {1: "cart"}}}, WireService)
    assert str(caught.value) == "metadata.labels: expected str, got int"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"spec":', id="cut-off"),
        pytest.param(b"<html>", id="html-page"),
        pytest.param(b'{"metadata": {"name": "\xff"}}', id="not-unicode"),
        pytest.param(b'{"x":' + b"[" * 100_000, id="too-deep"),
    ],
)
def test_text_other_than_json_is_a_field_error(data):
    with pytest.raises(FieldError, match=r"^not JSON: "):
        decode(data, WireService)


def _json(value):
    return json.dumps(value).encode()


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", [*KINDS, METADATA])
def test_the_services_page_has_a_row_for_each_field(kind):
    fields = fields_of(kind)
    rows = documented()[kind]
    if kind == METADATA:
        rows = {name: word for name, word in rows.items() if name.startswith("metadata.")}
    assert rows == fields


def test_the_services_page_lists_all_labels_and_annotations_that_are_read():
    rows = documented()[METADATA]
    names = {name for name in rows if not name.startswith("metadata.")}
    assert named_values() <= names
    # The proxy reads this annotation only to report that it is ignored, so the page doesn't list it
    # as supported.
    followed = named_values() - {ANNOTATION_SOURCE_RANGES}
    assert {name for name in names if rows[name] == "supported"} == followed


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (b'{"a":1},{', 7),
        (b'{"a":"},"} ]', 11),
        (b'"a":', 3),
        (b"12,", 2),
        (b"12", None),
        (b'{"a":1}', None),
        (b'{"a":"\\', None),
        (b'{"a":"\\u00', None),
        (b'{"a":tru', None),
        (b'{"a":"\xc3', None),
        (b"", None),
    ],
)
def test_the_size_of_a_json_value_excludes_following_bytes(text, size):
    assert value_size(memoryview(text)) == size


@pytest.mark.parametrize("text", [b'{"a":1]', b"}"])
def test_a_malformed_json_value_raises_an_error(text):
    with pytest.raises(FieldError, match="not JSON"):
        value_size(memoryview(text))


def test_a_too_deeply_nested_value_raises_an_error_before_python_3_14():
    text = memoryview(b"[" * 100_000 + b"1")
    # Python 3.14 limits recursion by the remaining stack, which suffices for this depth.
    if sys.version_info >= (3, 14):
        assert value_size(text) is None
    else:
        with pytest.raises(FieldError, match="recursion"):
            value_size(text)


def test_a_condition_missing_from_a_pod_is_returned_as_empty():
    pod = msgspec.convert({"status": {"conditions": [{"type": "Ready"}]}}, WirePod)
    assert [pod.condition(name).type for name in ("Ready", "Other")] == ["Ready", None]
    assert WirePod().condition("Ready") == WireCondition()
