import pytest

from userspace_proxy.cli.help import help_text
from userspace_proxy.config.settings import TABLE
from userspace_proxy.config.table import Topic


@pytest.mark.parametrize("flag", [row.flag for row in TABLE.values()])
def test_every_flag_is_in_the_help(flag):
    assert f"--{flag}" in help_text("")


def test_groups_are_in_their_order():
    text = help_text("")
    places = [text.index(f"\n{topic}:\n") for topic in Topic]
    assert places == sorted(places)


def test_a_flag_has_its_value_its_help_and_its_default():
    lines = help_text("").splitlines()
    at = lines.index("  --log-format text|json          format of the log on stderr (text)")
    assert lines[at + 1].startswith("  -v, --v N                       how much is logged:")
    assert lines[at + 2].endswith(" debugging (0)")


def test_a_switch_has_neither_value_nor_default():
    (line,) = [line for line in help_text("").splitlines() if line.startswith("  --cleanup ")]
    assert line.endswith("and exit")


def test_a_long_flag_has_its_help_below():
    lines = help_text("").splitlines()
    below = lines[lines.index("  --preserve-client-address auto|never") + 1]
    assert below == " " * 34 + "whether endpoints see the client's own address (auto)"


@pytest.mark.parametrize("command", ["", "run", "cleanup", "demo"])
def test_help_has_examples_and_exit_codes_and_fits_a_screen(command):
    text = help_text(command)
    assert "Example" in text
    assert text.endswith("Exit codes: 0 done, 1 failed, 2 wrong usage")
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()
