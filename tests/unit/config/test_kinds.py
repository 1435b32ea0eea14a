import pytest

from userspace_proxy.config.kinds import (
    ANY,
    BOOL,
    GATES,
    NUMBER,
    SHARE,
    TEXT,
    choice,
    duration,
    integer,
    port_range,
    texts,
    wrong_type,
)
from userspace_proxy.config.values import PortRange
from userspace_proxy.errors import ConfigError

COUNT = integer(0, 100)
LENGTH = duration(least_s=0.5)
PORTS = port_range(PortRange(17000, 29999))
NAMES = texts("NAME,...", str)


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        pytest.param(TEXT, "node-1", "node-1", id="text"),
        pytest.param(BOOL, True, True, id="boolean"),
        pytest.param(COUNT, 4, 4, id="number"),
        pytest.param(NUMBER, 2.5, 2.5, id="fraction"),
        pytest.param(SHARE, 1, 1.0, id="share"),
        pytest.param(LENGTH, "1m0s", 60.0, id="duration"),
        pytest.param(duration(), 0, 0.0, id="zero-without-unit"),
        pytest.param(duration(zero_means=None), "0s", None, id="zero-as-default"),
        pytest.param(PORTS, "0-0", PortRange(17000, 29999), id="any-port"),
        pytest.param(NAMES, ["a", "b"], ("a", "b"), id="list"),
        pytest.param(NAMES, "a, b,", ("a", "b"), id="list-as-text"),
        pytest.param(GATES, {"A": True}, (("A", True),), id="mapping"),
        pytest.param(choice("text", "json"), "json", "json", id="choice"),
        pytest.param(ANY, [1], [1], id="anything"),
    ],
)
def test_a_value_from_a_file_is_parsed(kind, value, read):
    assert kind.read(value) == read


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (TEXT, 5, "5 (a number) is not text (quote it)"),
        (TEXT, True, "True (a boolean) is not text (quote it)"),
        (TEXT, ["a"], "a list is not text"),
        (TEXT, {"a": 1}, "a mapping is not text"),
        (BOOL, "true", "'true' (text) is not true or false"),
        (COUNT, "4", "'4' (text) is not a whole number"),
        (COUNT, True, "True (a boolean) is not a whole number"),
        (COUNT, 1.5, "1.5 (a number) is not a whole number"),
        (COUNT, 101, "101 is not in 0–100"),
        (NUMBER, "2", "'2' (text) is not a number"),
        (SHARE, 1.5, "1.5 is not in 0–1 (write 1 for all, 0.01 for 1 %)"),
        (SHARE, float("nan"), "nan is not in 0–1 (write 1 for all, 0.01 for 1 %)"),
        (LENGTH, 30, "30 has no unit (write 30s)"),
        (LENGTH, "100ms", "100ms is too short (at least 500ms)"),
        (LENGTH, [], "a list is not a duration such as 30s, 250ms or 1m30s"),
        (NAMES, [1], "1 (a number) is not text (quote it)"),
        (NAMES, {"a": 1}, "a mapping is not a list of strings"),
        (GATES, {"A": "true"}, "'true' (text) is not true or false"),
        (GATES, "A=true", "'A=true' (text) is not a mapping of names to true or false"),
        (choice("text", "json"), "yaml", "'yaml' is not one of text, json"),
    ],
)
def test_a_value_of_a_wrong_type_or_range_is_rejected(kind, value, message):
    with pytest.raises(ConfigError) as caught:
        kind.read(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A", "'A' is not a feature gate (write Name=true,Other=false)"),
        ("A=on", "'on' is not true or false"),
        ("=true", "'=true' is not a feature gate (write Name=true,Other=false)"),
    ],
)
def test_an_invalid_feature_gate_is_rejected(text, message):
    with pytest.raises(ConfigError) as caught:
        GATES.parse(text)
    assert str(caught.value) == message


def test_feature_gates_are_parsed_from_a_flag():
    assert GATES.parse("A=true, B=0,A=f") == (("A", False), ("B", False))


@pytest.mark.parametrize("text", ["", "x", "1.0", "½"])
def test_a_value_other_than_a_whole_number_is_rejected(text):
    with pytest.raises(ConfigError, match="is not a whole number"):
        COUNT.parse(text)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (NAMES, ("a", "b"), "a,b"),
        (GATES, (("A", True), ("B", False)), "A=true,B=false"),
        (BOOL, True, "true"),
        (LENGTH, 90.0, "1m30s"),
        (PORTS, PortRange(1, 2), "1-2"),
        (COUNT, 3, "3"),
    ],
)
def test_a_value_is_written_in_the_form_of_its_flag(kind, value, text):
    assert kind.write_text(value) == text
    assert kind.parse(text) == value


@pytest.mark.parametrize("value", ["", 0, 0.0, False, (), []])
def test_empty_zero_and_false_count_as_unset(value):
    assert TEXT.is_unset(value)


def test_a_disabled_server_counts_as_set():
    assert not TEXT.is_unset(None)


def test_a_zero_duration_counts_as_unset():
    kind = duration(zero_means=None)
    assert kind.is_unset(kind.read("0s"))


def test_control_characters_in_a_setting_are_rejected():
    with pytest.raises(ConfigError) as caught:
        TEXT.parse("node\n1")
    assert str(caught.value) == "'node\\n1' contains unprintable characters"


def test_a_value_other_than_a_number_is_rejected():
    with pytest.raises(ConfigError, match="'fast' is not a number"):
        NUMBER.parse("fast")


def test_an_error_about_a_null_value_calls_it_null():
    assert str(wrong_type(None, "text")) == "null is not text"
