import pytest

from userspace_proxy.cli.command import Imported
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy_kubectl.cli.table import DASHBOARD, FORWARD, NODES, REPORT


def test_each_row_of_the_command_table_has_a_summary_and_distinct_flags():
    assert [name for name, row in COMMANDS.items() if row.name != name or not row.summary] == []
    for row in COMMANDS.values():
        names = [flag.name for flag in row.flags] + [flag.short for flag in row.flags if flag.short]
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "row", [*COMMANDS.values(), DASHBOARD, FORWARD, NODES, REPORT], ids=lambda row: row.name
)
def test_the_function_of_each_command_can_be_imported(row):
    assert callable(row.run.load() if isinstance(row.run, Imported) else row.run)
