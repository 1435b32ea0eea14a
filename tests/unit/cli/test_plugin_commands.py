"""Tests of commands that other packages add, with a package installed for the test."""

import sys

import pytest

from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.plugin_commands import all_commands, find_command, find_for_all_nodes
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
    """Install one package that adds commands, and hide all others."""
    (tmp_path / "made_for_this_test.py").write_text(MODULE)
    info = tmp_path / "made_for_this_test-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: made-for-this-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    yield info
    sys.modules.pop("made_for_this_test", None)


def test_a_package_can_add_a_command(installed):
    assert list(all_commands(COMMANDS)) == [*COMMANDS, "greet"]
    assert find_command("greet", COMMANDS).summary == "say hello"


def test_a_package_cannot_replace_a_command(installed):
    assert find_command("run", COMMANDS) is all_commands(COMMANDS)["run"] is COMMANDS["run"]


def test_a_builtin_command_is_found_without_reading_entry_points(installed):
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
def test_an_unloadable_command_does_not_affect_other_commands(installed, where, why):
    (installed.parent / "fails_at_import.py").write_text("1 / 0")
    (installed / "entry_points.txt").write_text(f"{ENTRY_POINTS}broken = {where}\n")
    assert find_command("greet", COMMANDS).name == "greet"
    assert list(all_commands(COMMANDS)) == [*COMMANDS, "greet"]
    what = f"cannot load the command broken of made-for-this-test: {why}"
    with pytest.raises(ConfigError, match=what):
        find_command("broken", COMMANDS)
    with pytest.raises(ConfigError, match="did you mean broken"):
        find_command("brokn", COMMANDS)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("dashboard", "kubectl-userspace-proxy"),
        ("forward", "kubectl-userspace-proxy"),
        ("nodes", "kubectl-userspace-proxy"),
        ("report", "kubectl-userspace-proxy"),
        ("demo", "pytest-userspace-proxy"),
        ("sandbox", "pytest-userspace-proxy"),
    ],
)
def test_an_uninstalled_command_names_its_distribution(name, distribution, installed):
    with pytest.raises(ConfigError) as caught:
        find_command(name, COMMANDS)
    assert str(caught.value) == (
        f"{name} is a command of {distribution}, which isn't installed "
        f"(in a checkout: pip install . ./{distribution})"
    )


@pytest.mark.parametrize("command", ["status", "top", "observe"])
def test_a_command_for_all_nodes_names_the_package_to_install(command, installed, capsys):
    client = "kubectl-userspace-proxy"
    assert main([command, "--node=node-1"]) == 2
    assert capsys.readouterr().err == (
        f"error: {command} of all nodes is a part of {client}, which isn't installed "
        f"(in a checkout: pip install . ./{client})\n"
    )


def test_a_command_for_all_nodes_is_found_by_an_entry_point(installed):
    (installed / "entry_points.txt").write_text(
        "[userspace_proxy.for_all_nodes]\nstatus = made_for_this_test:MODULE\n"
    )
    assert find_for_all_nodes("status") == "no command"


def test_a_similar_command_of_another_package_is_suggested(installed):
    with pytest.raises(ConfigError, match=r"unknown command 'gret' \(did you mean greet\?\)"):
        find_command("gret", COMMANDS)
