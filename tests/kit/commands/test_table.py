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


@pytest.mark.parametrize("words", [["demo", "--help"], ["help", "demo"]])
def test_the_demo_command_prints_its_help(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("userspace-proxy demo: start a sandbox")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["demo", "--prot=1"], "unknown flag --prot (did you mean --port?)"),
        (
            ["demo", "heal", "web-1", "8080"],
            "unexpected argument '8080' (usage: userspace-proxy demo [COMMAND [POD]] [flags])",
        ),
        (["demo", "--port=x"], "--port: 'x' is not a whole number"),
        (["help", "dmo"], "unknown command 'dmo' (did you mean demo?)"),
    ],
)
def test_wrong_usage_is_reported_in_one_line_with_status_2(words, message, capsys):
    assert main(words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
