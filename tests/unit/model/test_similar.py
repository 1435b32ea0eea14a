"""Tests of suggestions for misspelt names."""

from __future__ import annotations

import pytest

from userspace_proxy.model.similar import (
    COMPARED_MAX,
    NEARLY_EQUAL,
    alike,
    did_you_mean,
    nearest,
    similar_hosts,
)

FIELDS = ("selector", "sessionAffinity", "ports")


@pytest.mark.parametrize(
    ("word", "near", "meant"),
    [
        ("selectr", "selector", "did you mean selector?"),
        ("SESSIONAFFINITY", "sessionAffinity", "did you mean sessionAffinity?"),
        ("xyzzy", "", ""),
    ],
)
def test_the_nearest_name_is_suggested(word, near, meant):
    assert (nearest(word, FIELDS), did_you_mean(word, FIELDS)) == (near, meant)


def test_alike_returns_up_to_the_requested_number_of_names():
    known = ["web-1", "db", "web-12", "webs"]
    assert alike("web-2", known, most=3) == ["web-12", "web-1", "webs"]
    assert alike("web-2", known, most=1) == ["web-12"]
    assert alike("xyzzy", known, most=3) == []


@pytest.mark.parametrize("length", [1, 15, 63, 253])
def test_the_number_of_compared_characters_is_bounded(length):
    names = iter(["a" * length] * COMPARED_MAX + ["not compared"])
    assert alike("a" * length, names, most=1) == ["a" * length]
    compared = COMPARED_MAX - len(list(names))
    assert compared == COMPARED_MAX // length


@pytest.mark.parametrize("word", ["a" * 254, "ab" * 4000], ids=len)
def test_a_word_longer_than_any_name_has_no_similar_name(word):
    assert alike(word, [word], most=1) == []


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("node-7", ["node-7.eu-west-1.compute.internal", "db"], 0),
        ("nod-7", ["db", "node-7.eu-west-1.compute.internal"], 1),
        ("node-7.eu-west-1.compute.internal", ["node-7", "db"], 0),
        ("node-7.a.example", ["db.a.example", "node-7.b.example"], 1),
        ("10.0.1.7", ["192.168.0.9", "10.0.1.17"], 1),
        ("xyzzy", ["node-7"], None),
    ],
)
def test_a_similar_host_may_have_another_domain_or_none(name, known, meant):
    assert similar_hosts(name, known)[:1] == (() if meant is None else (known[meant],))


@pytest.mark.parametrize(
    ("word", "is_meant"),
    [
        ("Servce", True),
        ("service", True),
        ("Services", True),
        ("ServiceAccount", False),
        ("Secret", False),
    ],
)
def test_with_a_strict_threshold_only_one_letter_may_differ(word, is_meant):
    assert nearest(word, ["Service"], similarity=NEARLY_EQUAL) == ("Service" if is_meant else "")
    suggestion = did_you_mean(word, ["Service"], similarity=NEARLY_EQUAL)
    assert bool(suggestion) is is_meant
