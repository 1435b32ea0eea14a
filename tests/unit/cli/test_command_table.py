from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS


def test_each_command_has_its_own_words():
    assert [name for name, row in COMMANDS.items() if row.name != name or not row.summary] == []
    for row in COMMANDS.values():
        names = [flag.name for flag in row.flags] + [flag.short for flag in row.flags if flag.short]
        assert len(names) == len(set(names))


def test_help_of_a_command_is_that_of_its_flag(capsys):
    assert main(["help", "status"]) == 0
    helped = capsys.readouterr().out
    assert main(["status", "--help"]) == 0
    assert capsys.readouterr().out == helped


def test_help_alone_is_the_programs(capsys):
    assert main(["help"]) == 0
    assert "\nCommands:\n" in capsys.readouterr().out
