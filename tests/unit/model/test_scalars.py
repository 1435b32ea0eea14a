from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from userspace_proxy.errors import InputError
from userspace_proxy.model.scalars import read_as_yaml_1_1, read_plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("NULL", None),
        ("true", True),
        ("False", False),
        ("FALSE", False),
        ("on", True),
        ("N", False),
        ("0", 0),
        ("80", 80),
        ("-1", -1),
        ("+5", 5),
        ("-0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("18446744073709551615", 2**64 - 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1),
        ("1e3", 1000),
        ("-1.5E-2", -0.015),
        ("1_000", 1000),
        ("0b11", 3),
    ],
)
def test_a_scalar_is_parsed_as_kubectl_parses_it(text, value):
    read = read_plain(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        "tRUE",
        "yEs",
        "12:30",
        "12:30:45",
        "2024-01-02",
        "12e45678",
        ".inf",
        ".nan",
        "10.96.0.1",
        "fd00::1",
        "-",
        ".",
        "+",
        "-a",
        "0x",
        "0xg",
        "0o8",
        "nULL",
        "1.2.3",
        "٣",
        "1e",
        "e3",
        "=",
        "v1",
    ],
)
def test_plain_scalars_that_match_no_other_type_are_text(text):
    assert read_plain(text) == text


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("012", "012 is 10 in YAML 1.1 and 12 in YAML 1.2", "quote it, or write 10 or 12"),
        (
            "-0777",
            "-0777 is -511 in YAML 1.1 and -777 in YAML 1.2",
            "quote it, or write -511 or -777",
        ),
        ("089", "089 has a leading zero", "quote it, or write 89"),
        ("007", "007 has a leading zero", "quote it, or write 7"),
        ("000", "000 has a leading zero", "quote it, or write 0"),
        (
            "18446744073709551616",
            "18446744073709551616 is a number of more than 64 bits",
            "quote it",
        ),
        ("0x" + "f" * 5000, "0xffffffffffffffffff… is a number of more than 64 bits", "quote it"),
    ],
    ids=lambda text: text[:40],
)
def test_ambiguous_or_too_large_numbers_are_errors(text, problem, hint):
    with pytest.raises(InputError) as caught:
        read_plain(text)
    assert (caught.value.message, caught.value.hint) == (problem, hint)


@given(text=st.text(alphabet="0123456789+-._exo:~ntfalsru"))
def test_arbitrary_text_is_parsed_as_a_scalar_or_rejected(text):
    try:
        read = read_plain(text)
    except InputError as exc:
        read = exc.hint
    assert read is None or isinstance(read, str | int | float)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("_1", "_1"),
        ("9" * 401, "9" * 401),
        ("-0x10", -16),
        ("9" * 309, "9" * 309),
        ("0x1" + "0" * 16, 1 << 64),
        ("0.5e1", 5),
        ("", None),
        ("No", False),
        ("~", None),
        ("on", True),
        ("1e400", "1e400"),
        ("1.50", 1.5),
        ("text", "text"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_read_as_yaml_1_1_returns_kubectls_value(text, value):
    assert read_as_yaml_1_1(text) == value
