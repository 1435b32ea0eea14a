import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy.model.durations import format_duration, parse_duration

NONE, FORMS = "is not a duration", "write 30s, 250ms or 1m30s"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("30s", 30.0),
        ("1m0s", 60.0),
        ("1h30m", 5400.0),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2.s", 2.0),
        ("1m0.1s", 60.1),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        pytest.param("10\N{GREEK SMALL LETTER MU}s", 1e-5, id="greek-mu"),
        ("5ns", 5e-9),
        ("+3s", 3.0),
        (" 3s ", 3.0),
    ],
)
def test_a_duration_in_go_notation_is_parsed(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        pytest.param("5", "has no unit", "write 5s", id="no-unit"),
        pytest.param("-5s", "is negative", "", id="negative"),
        pytest.param("", NONE, FORMS, id="empty"),
        pytest.param("5 s", NONE, FORMS, id="space"),
        pytest.param("1d", NONE, FORMS, id="days"),
        pytest.param("300000000h", "is too long", "", id="longer-than-go-has"),
        pytest.param("s", NONE, FORMS, id="unit-alone"),
        pytest.param("٣s", NONE, FORMS, id="other-digits"),
    ],
)
def test_an_invalid_duration_is_rejected_with_a_hint(text, what, hint):
    with pytest.raises(ConfigError) as caught:
        parse_duration(text)
    assert (caught.value.message, caught.value.hint) == (f"{text!r} {what}", hint)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (30.0, "30s"),
        (60, "1m0s"),
        (90.000000001, "1m30.000000001s"),
        (3600, "1h0m0s"),
        (5400.0, "1h30m0s"),
        (0.25, "250ms"),
        (0.0015, "1.5ms"),
        (1e-5, "10µs"),
        (5e-9, "5ns"),
    ],
)
def test_a_duration_round_trips_in_go_notation(seconds, text):
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds
