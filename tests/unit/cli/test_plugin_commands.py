"""Commands that other packages add, with an installed package that is made for the test."""

import sys

import pytest

from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.plugin_commands import all_commands, find_command
from userspace_proxy.errors import ConfigError

MODULE = """\
from userspace_proxy.cli.command import Command

GREET = Command("greet", "say hello", lambda given: 0)
RUN = Command("run", "replace a command", lambda given: 1)
"""
ENTRY_POINTS = """\
[userspace_proxy.commands]
run = made_for_this_test:RUN
greet = made_for_this_test:GREET
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Have only one package installed, with commands of its own."""
    (tmp_path / "made_for_this_test.py").write_text(MODULE)
    info = tmp_path / "made_for_this_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-for-this-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    yield info
    sys.modules.pop("made_for_this_test", None)


def test_a_package_adds_a_command_behind_the_others(installed):
    assert list(all_commands(COMMANDS)) == [*COMMANDS, "greet"]
    assert find_command("greet", COMMANDS).summary == "say hello"


def test_a_package_replaces_no_command(installed):
    assert find_command("run", COMMANDS) is all_commands(COMMANDS)["run"] is COMMANDS["run"]


def test_a_command_of_this_package_is_found_without_reading_what_is_installed(installed):
    (installed / "entry_points.txt").write_text("[userspace_proxy.commands]\nbroken = gone:GONE\n")
    assert find_command("status", COMMANDS) is COMMANDS["status"]
    what = "cannot load the command broken of made-for-this-test: No module named 'gone'"
    with pytest.raises(ConfigError, match=what):
        find_command("broken", COMMANDS)


@pytest.mark.parametrize("name", ["demo", "sandbox"])
def test_without_the_test_kit_its_commands_name_what_to_install(name, installed):
    with pytest.raises(ConfigError) as caught:
        find_command(name, COMMANDS)
    assert str(caught.value) == (
        f"{name} is a command of pytest-userspace-proxy, which isn't installed "
        "(in a checkout: pip install . ./pytest-userspace-proxy)"
    )


def test_a_similar_command_of_another_package_is_offered(installed):
    with pytest.raises(ConfigError, match=r"unknown command 'gret' \(did you mean greet\?\)"):
        find_command("gret", COMMANDS)
