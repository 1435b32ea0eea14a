"""Toxics as values, and the validation of their fields."""

import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy_testing.faults.toxics import (
    TYPES,
    UDP_TYPES,
    Bandwidth,
    Latency,
    NamedToxic,
    ResetPeer,
    Slicer,
    read_toxic,
)


def test_toxics_have_the_names_and_attributes_of_toxiproxy_and_at_connect():
    assert {name: sorted(toxic().attributes()) for name, toxic in TYPES.items()} == {
        "latency": ["jitter", "latency"],
        "bandwidth": ["rate"],
        "slow_close": ["delay"],
        "timeout": ["timeout"],
        "reset_peer": ["at_connect", "timeout"],
        "slicer": ["average_size", "delay", "size_variation"],
        "limit_data": ["bytes"],
    }


@pytest.mark.parametrize(
    ("given", "toxic"),
    [
        pytest.param(
            {"type_": "latency", "attributes": {"latency": 100}},
            NamedToxic("latency_downstream", "downstream", Latency(100)),
            id="defaults",
        ),
        pytest.param(
            {"type_": "bandwidth", "attributes": {"rate": 5}, "stream": "upstream", "name": "slow"},
            NamedToxic("slow", "upstream", Bandwidth(5)),
            id="name-and-stream",
        ),
        pytest.param(
            {
                "type_": "slicer",
                "attributes": {"average_size": 9, "size_variation": 3, "delay": 7},
                "toxicity": 0.5,
            },
            NamedToxic("slicer_downstream", "downstream", Slicer(9, 3, 7), 0.5),
            id="toxicity",
        ),
        pytest.param(
            {"type_": "reset_peer", "attributes": {"at_connect": True}},
            NamedToxic("reset_peer_downstream", "downstream", ResetPeer(at_connect=True)),
            id="true-or-false",
        ),
    ],
)
def test_a_toxic_is_parsed(given, toxic):
    assert read_toxic(**given) == toxic


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param(
            {"type_": "latancy", "attributes": {}},
            "there is no toxic 'latancy' (did you mean latency?)",
            id="type",
        ),
        pytest.param(
            {"type_": "x", "attributes": {}}, "known: latency, bandwidth", id="unknown-type"
        ),
        pytest.param(
            {"type_": "latency", "attributes": {"jiter": 1}},
            "toxic latency has no 'jiter' (did you mean jitter?)",
            id="attribute",
        ),
        pytest.param(
            {"type_": "latency", "attributes": {"latency": -1}},
            "toxic latency: latency: -1 is not a whole number from 0",
            id="negative",
        ),
        pytest.param(
            {"type_": "latency", "attributes": {"latency": True}},
            "latency: True is not a whole number",
            id="bool",
        ),
        pytest.param(
            {"type_": "reset_peer", "attributes": {"at_connect": 1}},
            "toxic reset_peer: at_connect: 1 is not true or false",
            id="number",
        ),
        pytest.param(
            {"type_": "latency", "attributes": {}, "stream": "up"},
            "stream 'up' is not upstream or downstream",
            id="stream",
        ),
        pytest.param(
            {"type_": "latency", "attributes": {}, "toxicity": 1.5},
            "toxicity 1.5 is not a number from 0 to 1",
            id="toxicity",
        ),
        pytest.param(
            {"type_": "latency", "attributes": {}, "toxicity": "1"},
            "toxicity '1' is not a number from 0 to 1",
            id="toxicity-text",
        ),
        pytest.param(
            {"type_": "loss", "attributes": {"percent": 101}, "types": UDP_TYPES},
            "percent: 101 is not a whole number from 0 to 100",
            id="percent",
        ),
    ],
)
def test_an_invalid_toxic_is_an_error(given, words):
    with pytest.raises(ConfigError) as caught:
        read_toxic(**given)
    assert words in str(caught.value)
