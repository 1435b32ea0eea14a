"""Tests of unknown fields and of values with a wrong type."""

from __future__ import annotations

from typing import Any

import pytest

from userspace_proxy.model.fields import UNKNOWN_MAX, FieldErrors, convert_strictly, join_errors
from userspace_proxy.model.wire import FieldError, WireEndpointSlice, WireNode, WireService


def accept(_wire: object) -> None:
    """Accept any object."""


def errors_of(value: Any, type_: Any = WireService, check: Any = accept) -> list[str]:
    try:
        convert_strictly(value, type_, check)
    except FieldError as exc:
        return [str(error) for error in (exc, *exc.others)]
    return []


def service(**spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"any": "label"}, "uid": "1"},
        "spec": {
            "selector": {"any": "label"},
            "ports": [{"port": 80, "targetPort": "web"}],
            **spec,
        },
    }


def test_an_object_with_known_fields_is_converted():
    assert convert_strictly(service(), WireService, accept).metadata.name == "web"


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        (service(selectr={}), ["spec.selectr: unknown field (did you mean selector?)"]),
        (
            service(ports=[{"port": 80}, {"port": 53, "protocl": "UDP", "targetport": 53}]),
            [
                "spec.ports[1].protocl: unknown field (did you mean protocol?)",
                "spec.ports[1].targetport: unknown field (did you mean targetPort?)",
            ],
        ),
        (
            service(targetPort=80),
            ["spec.targetPort: unknown field (did you mean spec.ports[].targetPort?)"],
        ),
        (service(xyzzy=80), ["spec.xyzzy: unknown field"]),
        ({**service(), "metdata": {}}, ["metdata: unknown field (did you mean metadata?)"]),
        (service(**{"a\nb": 1}), ["spec.'a\\nb': unknown field"]),
        (service(**{"a" * 101: 1}), [f"spec.'{'a' * 100}'…: unknown field"]),
    ],
    ids=["one", "several", "place", "unlike", "metadata", "quoted", "shortened"],
)
def test_an_unknown_field_is_an_error_with_a_suggestion_if_a_known_field_is_similar(value, errors):
    assert errors_of(value) == errors


def test_the_field_kind_is_accepted_only_at_the_top_level():
    assert errors_of(service(kind="x")) == ["spec.kind: unknown field"]


def test_unknown_status_fields_of_a_node_are_accepted():
    node = {"metadata": {"name": "alice"}, "status": {"newFeature": 1}, "spec": {"newField": 1}}
    assert errors_of(node, WireNode) == ["spec.newField: unknown field"]


def test_the_number_of_reported_unknown_fields_is_bounded():
    assert len(errors_of(service(**{f"x{n}": 1 for n in range(200)}))) == UNKNOWN_MAX


@pytest.mark.parametrize(
    ("value", "errors"),
    [
        (
            service(ports=[{"port": "80"}, {"port": 81, "nodePort": []}, 3], clusterIPs=["", 1]),
            [
                "spec.clusterIPs[1]: expected str, got int",
                "spec.ports[0].port: expected int, got str",
                "spec.ports[1].nodePort: expected int, got list",
                "spec.ports[2]: expected mapping, got int",
            ],
        ),
        (
            service(sessionAffinityConfig={"clientIP": {"timeoutSeconds": "60"}}),
            ["spec.sessionAffinityConfig.clientIP.timeoutSeconds: expected int, got str"],
        ),
        (service(ports={}), ["spec.ports: expected list, got mapping"]),
        (
            {"metadata": {"labels": {"a": "b", "example.com/c": 1, "d": 0.5, "e": True, "f": []}}},
            [
                "metadata.labels.example.com/c: expected str, got int (quote it)",
                "metadata.labels.d: expected str, got float (quote it)",
                "metadata.labels.e: expected str, got bool (quote it)",
                "metadata.labels.f: expected str, got list",
            ],
        ),
        ([], ["expected mapping, got list"]),
        (
            service(selectr={}, type=1),
            [
                "spec.selectr: unknown field (did you mean selector?)",
                "spec.type: expected str, got int",
            ],
        ),
    ],
)
def test_all_wrong_types_are_reported(value, errors):
    assert errors_of(value) == errors


def test_problems_found_by_the_check_are_reported_along_with_unknown_fields():
    def check(wire: WireEndpointSlice) -> None:
        raise FieldError("addressType", f"{wire.address_type} is wrong")

    value = {"addresType": "IPv4"}
    assert errors_of(value, WireEndpointSlice, check) == [
        "addresType: unknown field (did you mean addressType?)",
        "addressType: None is wrong",
    ]


def test_errors_of_several_checks_are_joined():
    errors = FieldErrors()
    errors.raise_found()
    with errors:
        raise FieldError("a", "is missing")
    with errors:
        raise join_errors([FieldError("b", "is missing"), FieldError("c", "is missing")])
    with pytest.raises(FieldError, match=r"^a: is missing$") as caught:
        errors.raise_found()
    assert [str(other) for other in caught.value.others] == ["b: is missing", "c: is missing"]


def test_exceptions_other_than_field_errors_are_not_collected():
    errors = FieldErrors()
    with pytest.raises(ZeroDivisionError), errors:
        _ = 1 // 0
    assert errors.found == []
