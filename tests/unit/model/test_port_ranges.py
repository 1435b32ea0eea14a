"""Tests of accepted and rejected values of the annotation for port ranges."""

import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy.model.port_ranges import (
    RANGES_MAX,
    AskedRange,
    DialledRange,
    read_port_ranges,
)


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        pytest.param("rtp=10000-20000", [AskedRange("rtp", 10000, 20000)], id="one"),
        pytest.param(
            "rtp=10000-20000, passive = 30000-30100",
            [AskedRange("rtp", 10000, 20000), AskedRange("passive", 30000, 30100)],
            id="two",
        ),
        pytest.param("5060=1-65535", [AskedRange("5060", 1, 65535)], id="by-number"),
        pytest.param("game=all", [AskedRange("game", 1, 65535, is_all=True)], id="all"),
    ],
)
def test_port_ranges_are_parsed_with_their_port(text, ranges):
    assert read_port_ranges(text) == tuple(ranges)


def test_a_range_of_all_ports_is_recognized_in_any_notation():
    found = read_port_ranges("sip=1-65535, game=all, rtp=1-65534, web=2-65535")
    assert [one.has_all_ports for one in found] == [True, True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("rtp", id="no-range"),
        pytest.param("rtp=", id="empty"),
        pytest.param("=1-2", id="no-port"),
        pytest.param("rtp=10000", id="single"),
        pytest.param("rtp=0-9", id="zero"),
        pytest.param("rtp=1-65536", id="too-large"),
        pytest.param("rtp=9-1", id="turned-round"),
        pytest.param("rtp=9-9", id="one-port"),
        pytest.param("rtp=1-2,rtp=4-5", id="twice"),
        pytest.param("rtp=1-2,", id="comma-at-the-end"),
        pytest.param("rtp=1-2 3-4", id="two-in-one"),
        pytest.param("rtp=-5", id="no-first"),
        pytest.param(",".join(f"p{n}=1-2" for n in range(RANGES_MAX + 1)), id="too-many"),
    ],
)
def test_an_invalid_port_range_is_rejected(text):
    with pytest.raises(ConfigError):
        read_port_ranges(text)


def test_a_reversed_range_is_rejected_with_the_correct_form():
    with pytest.raises(ConfigError, match="write rtp=1-9"):
        read_port_ranges("rtp=9-1")


def test_the_maximum_number_of_ranges_is_accepted():
    text = ",".join(f"p{n}=1-2" for n in range(RANGES_MAX))
    assert len(read_port_ranges(text)) == RANGES_MAX


def test_a_port_range_is_formatted_as_in_the_annotation():
    ranges = read_port_ranges("rtp=10000-20000,game=all")
    assert list(map(str, ranges)) == ["rtp=10000-20000", "game=all"]


@pytest.mark.parametrize(
    ("ip", "port", "offset"),
    [
        ("10.96.0.1", 10000, -5000),
        ("10.96.0.1", 20000, 5000),
        ("10.96.0.1", 9999, None),
        ("10.96.0.1", 20001, None),
        ("10.96.0.2", 15000, None),
    ],
)
def test_the_offset_of_a_port_in_a_range_is_relative_to_the_service_port(ip, port, offset):
    assert DialledRange("10.96.0.1", 10000, 20000, 15000).offset(ip, port) == offset
