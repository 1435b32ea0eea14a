"""Text of objects in messages."""

import pytest

from userspace_proxy.model.quoting import SHOWN_MAX, quoted, shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nb", r"'a\nb'"),
        ("a" * SHOWN_MAX, f"'{'a' * SHOWN_MAX}'"),
        ("a" * (SHOWN_MAX + 1), f"'{'a' * SHOWN_MAX}'…"),
        (-1, "-1"),
        (10**SHOWN_MAX, f"1{'0' * (SHOWN_MAX - 1)}…"),
        (None, "None"),
    ],
)
def test_a_long_value_is_cut(value, text):
    assert quoted(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("a-b", "a-b"), ("a\n", r"'a\n'"), ("a" * 101, f"'{'a' * 100}'…")],
)
def test_a_name_is_quoted_if_it_is_long_or_not_printable(name, text):
    assert shown(name) == text
