"""Commands that other packages add, with an installed package that is made for the test."""

import sys

import pytest

from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.plugin_commands import all_commands, find_command
from userspace_proxy.errors import ConfigError

MODULE = """\
from userspace_proxy.cli.command import Command

GREET = Command("greet", "say hello", lambda given: 0)
MODULE = "no command"
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
    (installed / "entry_points.txt").write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        all_commands(COMMANDS)
    assert find_command("status", COMMANDS) is COMMANDS["status"]


@pytest.mark.parametrize(
    ("where", "why"),
    [
        pytest.param("gone:GONE", "ModuleNotFoundError: No module named 'gone'", id="no-module"),
        pytest.param("made_for_this_test:GONE", "AttributeError: .*'GONE'", id="no-attribute"),
        pytest.param("fails_at_import:GREET", "ZeroDivisionError: ", id="fails"),
        pytest.param("made_for_this_test:MODULE", "made_for_this_test:MODULE is no", id="type"),
    ],
)
def test_a_command_that_cannot_be_loaded_fails_alone(installed, where, why):
    (installed.parent / "fails_at_import.py").write_text("1 / 0")
    (installed / "entry_points.txt").write_text(f"{ENTRY_POINTS}broken = {where}\n")
    assert find_command("greet", COMMANDS).name == "greet"
    assert list(all_commands(COMMANDS)) == [*COMMANDS, "greet"]
    what = f"cannot load the command broken of made-for-this-test: {why}"
    with pytest.raises(ConfigError, match=what):
        find_command("broken", COMMANDS)
    with pytest.raises(ConfigError, match="did you mean broken"):
        find_command("brokn", COMMANDS)


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
