"""The types of faults."""

import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import Protocol
from userspace_proxy_testing.faults.fault_types import (
    FirstResets,
    check_given,
    check_listener_fault,
    check_type,
    protocols_of,
)
from userspace_proxy_testing.faults.toxics import Bandwidth, Latency, Loss, ResetPeer


def test_each_fault_type_is_accepted_only_for_its_protocols():
    for protocol in Protocol:
        check_type("latency", protocol)
    assert protocols_of("latency") == {*Protocol}
    assert protocols_of("loss") == {Protocol.UDP}
    assert protocols_of("slow") == frozenset()
    with pytest.raises(ConfigError, match="fault loss is for UDP only"):
        check_type("loss", Protocol.TCP)
    with pytest.raises(ConfigError, match="fault refuse is for TCP only"):
        check_type("refuse", Protocol.UDP)


@pytest.mark.parametrize(
    ("type_", "hint"),
    [("latancy", "did you mean latency?"), ("slow", "known: latency, loss, reorder")],
)
def test_an_unknown_fault_is_rejected_with_a_suggestion_or_the_known_faults(type_, hint):
    with pytest.raises(ConfigError) as caught:
        check_type(type_, Protocol.UDP)
    assert str(caught.value) == f"there is no fault {type_!r} ({hint})"


@pytest.mark.parametrize("type_", [None, 7, ["latency"]], ids=["none", "number", "list"])
def test_a_fault_type_must_be_a_name(type_):
    with pytest.raises(TypeError, match="fault: expected a name such as 'latency', got "):
        check_type(type_, Protocol.TCP)


@pytest.mark.parametrize("toxic", [Latency(), Bandwidth(), Loss()], ids=["latency", "rate", "loss"])
def test_a_fault_without_its_required_parameter_is_rejected(toxic):
    with pytest.raises(ConfigError, match=rf"fault {toxic.TYPE}: no .* is given \(give "):
        check_given(toxic, {})


def test_a_given_fault_parameter_may_be_zero_and_an_optional_one_missing():
    check_given(Latency(), {"jitter": 0})
    check_given(Bandwidth(), {"rate": 0})
    check_given(ResetPeer(), {})


def test_only_fail_first_accepts_and_requires_a_count():
    assert check_listener_fault("refuse", {}) is None
    assert check_listener_fault("fail_first", {"count": 3}) == FirstResets(3)
    given = {"count": 3, "at_connect": True}
    assert check_listener_fault("fail_first", given) == FirstResets(3, at_connect=True)
    with pytest.raises(ConfigError, match=r"attributes \['count'\] \(it takes none\)"):
        check_listener_fault("refuse", {"count": 1})
    with pytest.raises(ConfigError, match=r"attributes \[\] \(give count=N\)"):
        check_listener_fault("fail_first", {})


@pytest.mark.parametrize("count", [1.5, True, "2", 0, -1])
def test_an_invalid_count_is_an_error(count):
    with pytest.raises(ConfigError, match="is not a whole number from 1"):
        check_listener_fault("fail_first", {"count": count})


def test_at_connect_must_be_a_boolean():
    with pytest.raises(ConfigError, match="fail_first: at_connect: 1 is not true or false"):
        check_listener_fault("fail_first", {"count": 1, "at_connect": 1})
    with pytest.raises(ConfigError, match="refuse: attributes"):
        check_listener_fault("refuse", {"at_connect": True})
