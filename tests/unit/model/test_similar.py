"""Names that were probably meant."""

from __future__ import annotations

import pytest

from userspace_proxy.model.similar import NEARLY_EQUAL, alike, did_you_mean, nearest

FIELDS = ("selector", "sessionAffinity", "ports")


@pytest.mark.parametrize(
    ("word", "near", "meant"),
    [
        ("selectr", "selector", "did you mean selector?"),
        ("sessionaffinity", "sessionAffinity", "did you mean sessionAffinity?"),
        ("xyzzy", "", ""),
    ],
)
def test_the_nearest_name_is_suggested(word, near, meant):
    assert (nearest(word, FIELDS), did_you_mean(word, FIELDS)) == (near, meant)


def test_several_names_may_be_alike():
    known = ["web-1", "db", "web-12", "webs"]
    assert alike("web-2", known, most=3) == ["web-12", "web-1", "webs"]
    assert alike("web-2", known, most=1) == ["web-12"]
    assert alike("xyzzy", known, most=3) == []


def test_a_prefix_is_part_of_the_suggestion():
    assert did_you_mean("selectr", FIELDS, prefix="--") == "did you mean --selector?"


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
def test_of_a_nearly_equal_name_a_letter_may_differ(word, is_meant):
    assert nearest(word, ["Service"], similarity=NEARLY_EQUAL) == ("Service" if is_meant else "")
    suggestion = did_you_mean(word, ["Service"], similarity=NEARLY_EQUAL)
    assert bool(suggestion) is is_meant
