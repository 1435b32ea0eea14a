import pytest

from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.plugin_commands import all_commands
from userspace_proxy_testing.commands.table import DEMO, SANDBOX


def test_demo_and_sandbox_are_registered_commands():
    commands = all_commands(COMMANDS)
    assert (commands["demo"], commands["sandbox"]) == (DEMO, SANDBOX)


@pytest.mark.parametrize("words", [["help"], ["--help"], ["man"], ["completion", "bash"]])
def test_help_manual_page_and_completion_list_both_commands(words, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert [command.name for command in (DEMO, SANDBOX) if command.name not in shown] == []


@pytest.mark.parametrize("words", [["demo", "--help"], ["help", "demo"]], ids=["flag", "command"])
def test_the_demo_command_prints_its_help(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("userspace-proxy demo: start a sandbox")
