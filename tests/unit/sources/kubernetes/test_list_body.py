"""Splitting the body of a list into items, in whatever pieces it arrives."""

from __future__ import annotations

import json

import pytest

from userspace_proxy.model.wire import FieldError
from userspace_proxy.sources.kubernetes.list_body import ListBody

ITEMS = [
    {"metadata": {"name": "a"}, "text": 'a "quote", a \\ and },{"items":[{ é \u2028'},
    {},
    {"deep": [[{"x": [1, -2.5e3, None, True]}], {}]},
]
METADATA = {"resourceVersion": "7", "continue": "more"}


def read(body: bytes, part: int = 1 << 20, **options):
    found = ListBody(**options)
    items = [
        item for i in range(0, len(body), part) for item in found.feed(body[i : i + part])
    ] + found.feed(b"")
    return [json.loads(item) for item in items], found.metadata


@pytest.mark.parametrize("part", [1, 2, 3, 5, 17, 1000])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("is_utf_8", [True, False])
@pytest.mark.parametrize("order", [("metadata", "items"), ("items", "metadata")])
def test_items_and_metadata_are_parsed_in_any_order_and_any_chunks(part, indent, is_utf_8, order):
    values = {"kind": "List", "metadata": METADATA, "items": ITEMS, "items2": [1]}
    values = {name: values[name] for name in ("kind", *order, "items2")}
    body = json.dumps(values, indent=indent, ensure_ascii=not is_utf_8).encode() + b"\n"
    items, metadata = read(body, part)
    assert items == ITEMS
    assert (metadata.resource_version, metadata.continue_) == ("7", "more")


@pytest.mark.parametrize("body", [b"{}", b'{"items":[]}', b'{"items": null }', b' {"kind":"x"} '])
@pytest.mark.parametrize("part", [1, 100])
def test_a_list_body_without_items_is_parsed(body, part):
    items, metadata = read(body, part)
    assert (items, metadata.resource_version) == ([], None)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param(b"", "truncated", id="nothing"),
        pytest.param(b"<html>", "not JSON: not the list, but b'<'", id="html"),
        pytest.param(b"[]", "not the list", id="array"),
        pytest.param(b'{"items":[{"a":1},', "truncated", id="early-end"),
        pytest.param(b'{"items":[{"a":1}]', "truncated", id="no-end"),
        pytest.param(b'{"items":[{"a":1]}]}', "not JSON: JSON is malformed", id="item"),
        pytest.param(b'{"items":[{} {}]}', "not a comma, or the end of the array", id="comma"),
        pytest.param(b'{"items":[{},]}', "not JSON: JSON is malformed", id="comma-at-end"),
        pytest.param(b'{"items":7}', "items: expected list", id="no-array"),
        pytest.param(b'{"metadata":[]}', "expected mapping, got list", id="metadata"),
        pytest.param(b"{7:1}", "expected str, got int", id="key"),
        pytest.param(b"{}{}", "not nothing, but b'{'", id="more"),
        pytest.param(b'{"a":' + b"[" * 100_000 + b"1,", "recursion|truncated", id="deep"),
    ],
)
@pytest.mark.parametrize("part", [1, 1 << 20])
def test_a_malformed_list_body_is_rejected(body, problem, part):
    if part == 1 and len(body) > 1000:
        part = 1000
    with pytest.raises(FieldError, match=problem):
        read(body, part)


def test_items_are_returned_at_once_and_a_too_large_value_is_rejected():
    body = ListBody(value_bytes_max=1000)
    item = b'{"x":"' + bytes(b"y" * 900) + b'"},'
    assert body.feed(b'{"items":[') == []
    for _ in range(100):
        assert body.feed(item) == [item[:-1]]
    with pytest.raises(FieldError, match="a value is longer than 1000 bytes"):
        body.feed(b'{"x":"' + bytes(b"y" * 1000))


def test_a_value_arriving_byte_by_byte_is_parsed_only_a_few_times(monkeypatch):
    from userspace_proxy.sources.kubernetes import list_body as module

    tries = []
    real = module.value_size
    monkeypatch.setattr(module, "value_size", lambda view: tries.append(1) or real(view))
    text = json.dumps({"items": [{"x": "y" * 100_000}]}).encode()
    assert read(text, 1)[0] == [{"x": "y" * 100_000}]
    assert len(tries) < 100
