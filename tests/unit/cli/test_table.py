import pytest

from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.plugin_commands import all_commands, find_for_all_nodes
from userspace_proxy_kubectl.cli.table import DASHBOARD, FORWARD, NODES, REPORT

ALL = (DASHBOARD, FORWARD, NODES, REPORT)


def test_the_plugins_commands_are_registered():
    commands = all_commands(COMMANDS)
    assert [commands[command.name] for command in ALL] == [*ALL]


@pytest.mark.parametrize("words", [["help"], ["--help"], ["man"], ["completion", "bash"]])
def test_help_manual_page_and_completion_list_all_commands(words, capsys):
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert [command.name for command in ALL if command.name not in shown] == []


@pytest.mark.parametrize("command", ALL, ids=[command.name for command in ALL])
def test_each_command_prints_its_help(command, capsys):
    assert main(["help", command.name]) == 0
    assert capsys.readouterr().out.startswith(f"userspace-proxy {command.name}: ")


@pytest.mark.parametrize("command", ["status", "top", "observe", "explain"])
def test_each_command_for_one_proxy_exists_for_all_nodes(command):
    assert find_for_all_nodes(command).__module__.startswith("userspace_proxy_kubectl.cli.")
