"""Text of objects in messages."""

import json

import pytest

from userspace_proxy.model.quoting import SHOWN_MAX, printable, printable_lines, quoted, shown


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("shop/wéb ✓", "shop/wéb ✓", id="letters"),
        pytest.param("\x1b]52;c;eA==\x07", r"\u001b]52;c;eA==\u0007", id="c0"),
        pytest.param("\x9b2J", r"\u009b2J", id="c1"),
        pytest.param("\u202egnp.exe\u2069", r"\u202egnp.exe\u2069", id="direction"),
        pytest.param("a\nb\rc", r"a\nb\rc", id="lines"),
        pytest.param("\udce9\U000e0041", r"\udce9\udb40\udc41", id="as-in-json"),
    ],
)
def test_what_a_terminal_executes_or_hides_is_escaped(text, shown):
    assert printable(text) == shown
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == text


def test_of_a_text_lines_and_tabs_stay():
    assert printable_lines("a\tb\r\n\x1b[2J\n") == "a\tb\\r\n\\u001b[2J\n"
