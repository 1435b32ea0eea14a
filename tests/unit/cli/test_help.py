import pytest

from userspace_proxy.cli.command_table import COMMANDS, SUMMARY
from userspace_proxy.cli.help import command_help, program_help
from userspace_proxy.config.setting_table import Topic
from userspace_proxy.config.settings import TABLE

RUN = command_help(COMMANDS["run"])


@pytest.mark.parametrize("flag", [row.flag for row in TABLE.values()])
def test_every_setting_is_listed_in_the_help_of_run(flag):
    assert f"--{flag}" in RUN


def test_setting_groups_have_a_fixed_order():
    places = [RUN.index(f"\n{topic}:\n") for topic in Topic]
    assert places == sorted(places)


def test_a_setting_is_listed_with_its_value_help_and_default():
    lines = RUN.splitlines()
    at = lines.index("  --log-format text|json          format of the log on stderr (text)")
    assert lines[at + 1].startswith("  -v, --v N                       how much is logged:")
    assert lines[at + 2].startswith("  --connection-log SHARE          the share of connections")
    assert lines[at + 4].endswith(" (0)")


def test_a_switch_is_listed_without_value_and_default():
    (line,) = [line for line in RUN.splitlines() if line.startswith("  --cleanup ")]
    assert line.endswith("and exit")


def test_the_help_of_a_long_flag_is_on_the_next_line():
    lines = RUN.splitlines()
    below = lines[lines.index("  --preserve-client-address auto|never") + 1]
    assert below == " " * 34 + "whether endpoints see the client's own address (auto)"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_the_help_of_a_command_lists_its_flags_and_statuses_in_at_most_100_columns(command):
    text = command_help(command)
    assert text.startswith(f"userspace-proxy {command.name}: ")
    assert f"\n  userspace-proxy {command.name}" in text
    assert all(f"--{flag.name}" in text for flag in command.flags)
    assert text.splitlines()[-1] == f"  {max(2, *dict(command.exits))}  " + (
        dict(command.exits).get(3, "wrong usage")
    )
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()


def test_only_the_help_of_run_lists_settings():
    text = command_help(COMMANDS["check"])
    assert "--kubeconfig PATH" not in text
    assert "userspace-proxy run --help lists them" in text


def test_the_programs_help_lists_commands():
    text = program_help(SUMMARY, tuple(COMMANDS.values()))
    assert [name for name in COMMANDS if f"\n  {name} " not in text] == []
    assert max(map(len, text.splitlines())) <= 100
