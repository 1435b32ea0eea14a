"""Tests of reading which clients a load-balancer IP admits."""

from __future__ import annotations

import pytest

from userspace_proxy.model.notes import NoteKind
from userspace_proxy.model.source_ranges import (
    ANNOTATION_SOURCE_RANGES,
    NO_CLIENT,
    RANGES_MAX,
    parse_range,
    read_source_ranges,
)


@pytest.mark.parametrize(
    ("texts", "networks"),
    [
        pytest.param([], (), id="all"),
        pytest.param(["10.0.0.0/8", "2001:DB8::/32"], ("10.0.0.0/8", "2001:db8::/32"), id="both"),
        pytest.param([" 10.0.0.0/8\t"], ("10.0.0.0/8",), id="white-space"),
        pytest.param(["10.1.2.3/8", "10.0.0.0/8"], ("10.0.0.0/8",), id="bits-and-twice"),
        pytest.param(["0.0.0.0/0"], ("0.0.0.0/0",), id="all-of-a-family"),
        pytest.param(["192.0.2.1/32"], ("192.0.2.1/32",), id="one-address"),
        pytest.param(["010.0.0.0/08", "10.0.0.0/8"], ("10.0.0.0/8",), id="leading-zeros"),
        pytest.param(["::ffff:10.0.0.0/104"], ("10.0.0.0/8",), id="ipv4-as-ipv6"),
        pytest.param(["::ffff:10.0.0.0/80"], ("::/80",), id="wider-than-all-of-ipv4"),
    ],
)
def test_source_ranges_are_canonicalized(texts, networks):
    assert read_source_ranges(texts, {}) == (networks, ())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("web", id="text"),
        pytest.param("10.0.0.0", id="no-length"),
        pytest.param("10.0.0.0/", id="empty-length"),
        pytest.param("10.0.0.0/33", id="too-long"),
        pytest.param("10.0.0.0/255.0.0.0", id="netmask"),
        pytest.param("10.0.0.0/-1", id="negative"),
        pytest.param("10.0.0.0/²", id="superscript"),
        pytest.param("10.0.0.0/٨", id="foreign-digit"),
        pytest.param("fe80::%eth0/64", id="zone"),
    ],
)
def test_an_invalid_range_admits_no_client(text):
    networks, [note] = read_source_ranges([text], {})
    assert networks == NO_CLIENT
    assert note.kind is NoteKind.RANGE_WRONG
    assert note.about.startswith(f"{text!r} is ")
    networks, _ = read_source_ranges([text, "10.0.0.0/8"], {})
    assert networks == ("10.0.0.0/8", *NO_CLIENT)
    with pytest.raises(ValueError, match="is "):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("172.18.0.100", "172.18.0.100/32"),
        ("fd00::7", "fd00::7/128"),
        ("172.18.0.0", "10.0.0.0/8"),
        ("my-office", "10.0.0.0/8"),
    ],
)
def test_text_other_than_a_network_is_rejected_with_the_correct_form(text, meant):
    with pytest.raises(ValueError, match=rf" \(write {meant}\)$"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10.0.0.1/8", r"has bits set after its prefix \(write 10.0.0.0/8\)"),
        ("010.0.0.0/8", "is not a network"),
        ("10.0.0.0/08", "is not a network"),
        ("::ffff:10.0.0.0/104", "is a network of IPv4-mapped IPv6 addresses"),
    ],
)
def test_lenient_notation_is_an_error_in_strict_mode(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse_range(text)


@pytest.mark.parametrize(
    ("texts", "value", "is_noted"),
    [
        pytest.param([], "10.0.0.0/8", True, id="alone"),
        pytest.param(["10.0.0.0/8"], "10.0.0.0/8", False, id="beside-the-field"),
        pytest.param([], " ", False, id="empty"),
        pytest.param([], None, False, id="null"),
    ],
)
def test_the_source_ranges_annotation_has_no_effect_as_in_kube_proxy(texts, value, is_noted):
    networks, notes = read_source_ranges(texts, {ANNOTATION_SOURCE_RANGES: value})
    assert networks == tuple(texts)
    assert notes == is_noted * (NoteKind.RANGES_IN_ANNOTATION(),)


def test_too_many_source_ranges_admit_no_client():
    ranges = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(RANGES_MAX + 1)]
    assert read_source_ranges(ranges[:-1], {}) == (tuple(ranges[:-1]), ())
    assert read_source_ranges(ranges, {}) == (
        NO_CLIENT,
        (NoteKind.TOO_MANY_RANGES(1_001, 1_000),),
    )
