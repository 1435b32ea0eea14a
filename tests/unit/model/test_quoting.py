"""Tests of quoting text from objects in messages and commands."""

import json
import subprocess

import pytest

from userspace_proxy.model.quoting import (
    SHOWN_MAX,
    printable,
    printable_lines,
    quoted,
    shell_command,
    shell_word,
    shown,
)


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
def test_text_is_quoted_and_a_long_value_is_truncated(value, text):
    assert quoted(value) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("a-b", "a-b"), ("a\n", r"'a\n'"), ("a" * 101, f"'{'a' * 100}'…")],
)
def test_long_or_unprintable_names_are_quoted(name, text):
    assert shown(name) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("shop/wéb ✓", "shop/wéb ✓", id="letters"),
        pytest.param("\x1b]52;c;eA==\x07", r"\u001b]52;c;eA==\u0007", id="c0"),
        pytest.param("\x9b2J", r"\u009b2J", id="c1"),
        pytest.param("\u202egnp.exe\u2069", r"\u202egnp.exe\u2069", id="direction"),
        pytest.param("a\nb\rc", r"a\nb\rc", id="lines"),
        pytest.param("\udce9\U000e0041", r"\udce9\udb40\udc41", id="surrogates"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text, shown):
    assert printable(text) == shown
    assert shown.isprintable()
    assert json.loads(f'"{shown}"') == text


@pytest.mark.parametrize("write", [quoted, printable, printable_lines])
def test_secrets_in_quoted_text_are_masked(write):
    assert "hunter" not in write(f"http://me:hunter{'r' * SHOWN_MAX}@proxy:3128")


@pytest.mark.parametrize(
    "word",
    ["a b", "$(reboot)", "`reboot`", "a;reboot", "it's", '"', "~", "*", "é", "[::1]:80", "--a"],
)
def test_a_shell_receives_each_quoted_word_unchanged(word):
    script = f"printf '%s\\n' {shell_command(word, '-f', f'--node={word}')}"
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == [word, "-f", f"--node={word}"]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        pytest.param("a\nb", "'…'", id="lines"),
        pytest.param("\u202eb", "'…'", id="direction"),
        pytest.param("--server=evil", "'…'", id="a-flag"),
        pytest.param("", "", id="none"),
        pytest.param(("pods", "-n", "a b"), "pods -n 'a b'", id="several"),
    ],
)
def test_flags_and_unprintable_words_are_replaced_in_a_command(value, word):
    assert shell_word(value) == word


def test_line_breaks_and_tabs_of_a_text_are_not_escaped():
    assert printable_lines("a\tb\r\n\x1b[2J\n") == "a\tb\\r\n\\u001b[2J\n"
