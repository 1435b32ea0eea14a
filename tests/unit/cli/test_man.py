import pytest

from userspace_proxy.cli import main
from userspace_proxy.cli.command import Command, CommandFlag
from userspace_proxy.cli.command_table import COMMANDS, SUMMARY
from userspace_proxy.cli.man import man_page, plugin_page
from userspace_proxy.cli.plugin_commands import all_commands
from userspace_proxy.config.settings import TABLE

ALL = tuple(all_commands(COMMANDS).values())
PAGE = man_page(SUMMARY, ALL)


def test_every_command_and_flag_has_a_paragraph_in_the_manual_page():
    flags = [flag.name for command in ALL for flag in command.flags]
    flags += [row.flag for row in TABLE.values()]
    written = {name: f"\\fB\\-\\-{name.replace('-', chr(92) + '-')}\\fR" for name in flags}
    assert [name for name, text in written.items() if text not in PAGE] == []
    assert [name for name in COMMANDS if f'.SS "{name}"' not in PAGE] == []


def test_the_manual_page_has_the_standard_sections():
    sections = [line[4:] for line in PAGE.splitlines() if line.startswith(".SH ")]
    assert sections == [
        "NAME", "SYNOPSIS", "COMMANDS", "SETTINGS", "EXAMPLES", "FILES", "ENVIRONMENT",
    ]  # fmt: skip


def test_text_in_the_manual_page_never_begins_a_roff_macro():
    macros = {line.split()[0] for line in PAGE.splitlines() if line[:1] in (".", "'")}
    assert macros == {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".br"}


@pytest.mark.parametrize(
    ("text", "written"),
    [
        pytest.param("a-b", "A\\-b.", id="hyphen"),
        pytest.param("C:\\x", "C:\\ex.", id="backslash"),
        pytest.param('say "x"', "Say \\(dqx\\(dq.", id="quotes"),
        pytest.param(".TH", "\\&.TH.", id="request"),
    ],
)
def test_roff_special_characters_are_escaped(text, written):
    command = Command(
        "x", "x", lambda given: 0, flags=(CommandFlag("y", text),), takes_settings=True
    )
    page = man_page("s", [command, command])
    assert f"\\fB\\-\\-y\\fR\n{written}\n" in page


def test_the_command_prints_the_manual_page(capsys):
    assert main(["man"]) == 0
    assert capsys.readouterr().out == PAGE


def test_the_plugins_manual_page_shows_commands_as_typed():
    command = Command("nodes", "show nodes", lambda given: 0, examples=("nodes --watch",))
    page = plugin_page("s", [command])
    assert '.TH "KUBECTL\\-USERSPACE\\-PROXY" 8' in page
    assert ".B kubectl userspace\\-proxy nodes \\-\\-watch" in page
    assert [line[4:] for line in page.splitlines() if line.startswith(".SH ")] == [
        "NAME", "SYNOPSIS", "COMMANDS", "EXAMPLES", "SEE ALSO",
    ]  # fmt: skip
