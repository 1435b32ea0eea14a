"""Tests of the completion scripts; bash runs the script that was made for it."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.unit.status.views import make_port, make_view
from userspace_proxy.cli import main
from userspace_proxy.cli.command import PROGRAM, Command, CommandFlag
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.completion import PLUGIN, completion_script
from userspace_proxy.cli.plugin_commands import all_commands
from userspace_proxy.config.settings import TABLE

ALL = tuple(all_commands(COMMANDS).values())
BASH = completion_script("bash", ALL)


def complete(*words):
    """Return bash's completions of the last word."""
    split = [part for word in words for part in re.split("([=:])", word) if part or not word]
    line = " ".join(words)
    script = (
        f'{BASH}\n{PROGRAM}() {{ {sys.executable} -m userspace_proxy "$@"; }}\n'
        f"COMP_WORDS=({shlex.join(split)})\nCOMP_CWORD={len(split) - 1}\n"
        f"COMP_LINE={shlex.quote(line)}\nCOMP_POINT={len(line)}\n"
        '_userspace_proxy 2>/dev/null\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        pytest.param(["st"], ["status"], id="command"),
        pytest.param(["--log-f"], ["--log-format"], id="flag-of-run-without-a-command"),
        pytest.param(["run", "--kubec"], ["--kubeconfig"], id="flag-of-run"),
        pytest.param(["status", "--w"], ["--watch"], id="own-flag"),
        pytest.param(["status", "--manif"], [], id="not-a-flag-of-this-command"),
        pytest.param(["status", "-o", ""], ["text", "wide", "json"], id="values"),
        pytest.param(["status", "--output=j"], ["json"], id="value-after-a-sign"),
        pytest.param(["status", "--output="], ["text", "wide", "json"], id="nothing-after-a-sign"),
        pytest.param(["--steering", "n"], ["nftables", "none"], id="values-of-a-setting"),
        pytest.param(["check", "--server", "x"], [], id="value-that-is-free"),
        pytest.param(["completion", ""], ["bash", "zsh", "fish"], id="argument"),
        pytest.param(["help", "cl"], ["cleanup"], id="a-command-as-an-argument"),
    ],
)
def test_bash_offers_matching_words(words, offered):
    assert complete(PROGRAM, *words) == offered


def test_bash_offers_names_from_the_proxy_given_on_the_line(serve_view):
    """The address in the flag contains colons, at which bash splits words."""
    server = serve_view(make_view(make_port("web"), make_port("db", namespace="shipping")))
    assert complete(PROGRAM, "status", server, "-n", "sh") == ["shipping", "shop"]
    assert complete(PROGRAM, "status", server, "sh") == [
        "shipping", "shipping/db", "shop", "shop/web",
    ]  # fmt: skip
    assert complete(PROGRAM, "explain", server, "-n=shop", "w") == ["web"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        # A completion replaces only the part of the word after the last colon.
        pytest.param(["status", "-q", "is:refu"], ["refused"], id="state"),
        pytest.param(["top", "--search=cause:endpoint-ref"], ["endpoint-refuses"], id="cause"),
        pytest.param(["top", "--search=no"], ["node:"], id="qualifier"),
    ],
)
def test_bash_offers_search_qualifiers_and_values(words, offered):
    assert complete(PROGRAM, *words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell_completes_names(shell):
    calls = {
        "bash": "_userspace_proxy_names {}",
        "zsh": "_userspace-proxy_names {}",
        "fish": "(userspace-proxy complete {} -- ",
    }
    script = completion_script(shell, ALL)
    kinds = ("names", "services", "namespaces", "search")
    assert [kind for kind in kinds if calls[shell].format(kind) not in script] == []


def test_bash_offers_all_commands():
    assert complete(PROGRAM, "") == list(all_commands(COMMANDS))


def test_bash_offers_files_with_blanks_in_their_names(tmp_path):
    (tmp_path / "a b.yaml").touch()
    offered = complete(PROGRAM, "--manifests", f"{tmp_path}/a")
    assert offered == [f"{tmp_path}/a", "b.yaml"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_flag_is_in_each_script(shell):
    script = completion_script(shell, ALL)
    flags = [flag.name for command in ALL for flag in command.flags]
    flags += [row.flag for row in TABLE.values()]
    written = "-l {}" if shell == "fish" else "--{}"
    assert [name for name in flags if written.format(name) not in script] == []
    assert [name for name in COMMANDS if name not in script] == []


TRICKY = Command(
    "run",
    "it's",
    lambda given: 0,
    flags=(CommandFlag("a", "it's [x]: \\", "PATH"), CommandFlag("b", "b", "N|auto", short="b")),
)


def test_special_characters_of_zsh_are_escaped():
    lines = [line.strip() for line in completion_script("zsh", [TRICKY]).splitlines()]
    assert r"""'--a=[it'"'"'s \[x\]\: \\]:value:_files' \ """.strip() in lines
    assert r"'(--b -b)--b=[b]:value:(auto)' \ ".strip() in lines
    assert r"'(--b -b)-b[b]:value:(auto)' \ ".strip() in lines


def test_special_characters_of_fish_are_escaped():
    script = completion_script("fish", [TRICKY])
    assert r" -l a -r -F -d 'it\'s [x]: \\'" in script
    assert " -l b -s b -x -a 'auto' -d 'b'" in script


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_command_prints_the_script(shell, capsys):
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == completion_script(shell, ALL)


@pytest.mark.parametrize(("folder", "name"), [(".", PROGRAM), ("kubectl-userspace-proxy", PLUGIN)])
def test_the_packages_install_the_program_and_the_kubectl_plugin(folder, name):
    project = Path(__file__).parents[3] / folder / "pyproject.toml"
    scripts = tomllib.loads(project.read_text())["project"]["scripts"]
    assert scripts == {name: "userspace_proxy.cli:main"}
