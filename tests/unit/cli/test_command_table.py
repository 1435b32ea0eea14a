from userspace_proxy.cli.command_table import COMMANDS


def test_each_command_has_its_own_words():
    assert [name for name, row in COMMANDS.items() if row.name != name or not row.summary] == []
    for row in COMMANDS.values():
        names = [flag.name for flag in row.flags] + [flag.short for flag in row.flags if flag.short]
        assert len(names) == len(set(names))
