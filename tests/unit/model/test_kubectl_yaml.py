"""Tests that YAML is parsed as kubectl parses it; the expected values are from kubectl 1.36."""

from __future__ import annotations

import pytest

from userspace_proxy.errors import InputError
from userspace_proxy.model.document import decode
from userspace_proxy.model.kubectl_yaml import parse_first


def value_of(text: str) -> object:
    document = parse_first(text, place="k")
    return document.value if document else None


def test_a_document_is_parsed_as_kubectl_parses_it():
    text = (
        "{a: 0644, b: yes, 1: 12:30, d: 2020-01-01, e: 0x10, f: 1_000, g: 1.50, h: 0o17, i: ~,"
        ' j: 1e3, k: .5, l: "0644", m: y, n: off, o: 0b11, true: q, p: [1, {x: 2}],'
        " q: 12345678901234567890123, r: !!str 5, s: 1e400, t: +5, u: 08, v: -0,"
        " w: 2020-01-01T10:00:00Z, z: !foo bar, aa: !!binary aGk=, 1.5: x, 0x10: y}"
    )
    assert value_of(text) == {
        "1": "12:30", "1.5": "x", "16": True, "a": 420, "aa": "hi", "b": True, "d": "2020-01-01",
        "e": 16, "f": 1000, "false": False, "g": 1.5, "h": 15, "i": None, "j": 1000, "k": 0.5,
        "l": "0644", "m": True, "o": 3, "p": [1, {"x": 2}], "q": 1.2345678901234568e22, "r": "5",
        "s": "1e400", "t": 5, "true": "q", "u": 8, "v": 0, "w": "2020-01-01T10:00:00Z", "z": "bar",
    }  # fmt: skip


def test_the_last_of_duplicate_keys_is_used():
    assert value_of("a: 1\nb: 2\na: {c: 3}\n") == {"a": {"c": 3}, "b": 2}
    assert value_of("b: &x {a: 1}\nc: {<<: *x, d: 1}\nc: {<<: *x, d: 2}") == {
        "b": {"a": 1},
        "c": {"a": 1, "d": 2},
    }


@pytest.mark.parametrize(
    ("merging", "token"),
    [
        ("<<: *x, t: own", "own"),
        ("t: own, <<: *x", "x"),
        ("<<: [*x, *y]", "x"),
        ("<<: *x, <<: *y", "y"),
    ],
)
def test_a_yaml_merge_replaces_preceding_keys_and_is_replaced_by_following_keys(merging, token):
    value = value_of(f"x: &x {{t: x}}\nY: &y {{t: 'y'}}\nu: {{{merging}}}")
    assert isinstance(value, dict)
    assert value["u"] == {"t": token}


@pytest.mark.parametrize("end", ["---\n", "---\nb: 2\n", "---\n[}", "...\n", "# end"])
def test_only_the_first_document_is_parsed(end):
    assert value_of(f"---\na: 1\n{end}") == {"a": 1}


def test_tags_of_containers_and_unknown_tags_are_ignored():
    assert value_of("!!set {a: !x [1], b: !!binary '!', c: !!int 7}") == {
        "a": [1],
        "b": None,
        "c": 7,
    } | {"b": "!"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "k:1: not YAML"),
        ("null: 1", "k:1: key null is not text"),
        ("a:\n\t- 1", "k:2: not YAML"),
        ("[" * 200, "nested more than 100 deep"),
        ("a: \x00", "k:1: not YAML"),
    ],
)
def test_unreadable_yaml_is_reported_in_a_single_line(text, problem):
    with pytest.raises(InputError) as caught:
        parse_first(text, place="k")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_invalid_utf_8_byte_in_a_comment_is_ignored():
    assert value_of(decode(b"# gar\xe7on\na: 1\n")) == {"a": 1}
    with pytest.raises(InputError, match=r"^k:2: b: it is not UTF-8 here"):
        value_of(decode(b"a: 1\nb: gar\xe7on\n"))
