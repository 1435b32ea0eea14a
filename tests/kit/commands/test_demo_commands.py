"""Commands of a running demo, from its terminal and through its socket."""

import contextlib
import os
import select
import subprocess
import sys
import threading

import pytest

from tests.processes import started
from tests.unit.cli.conftest import Terminal
from userspace_proxy.cli.terminal import COLUMNS_SHOWN
from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy_testing.commands import demo_commands
from userspace_proxy_testing.commands.demo_commands import (
    FOLDER_PREFIX,
    Commands,
    Tour,
    send_command,
)
from userspace_proxy_testing.commands.table import DEMO


def run(line):
    if "web-9" in line:
        raise UserspaceProxyError("there is no pod 'web-9'", hint="pods: web-1")
    return f"did {line.strip()}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a demo, where the command expects it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"{FOLDER_PREFIX}1"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def listening(folder):
    """Run the demo's command server in a thread until the block ends."""
    ended, end = os.pipe()
    commands = Commands(folder, run)

    def serve():
        while not select.select([ended], [], [], 0)[0]:
            commands.wait(ended)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        os.write(end, b".")
        thread.join(30)
        commands.close()
        os.close(ended)
        os.close(end)


def test_a_command_from_another_terminal_is_answered(folder):
    with listening(folder):
        assert send_command(["break", "web-2"]) == "did break web-2"
        assert send_command(["heal"]) == "did heal"


def test_a_command_error_is_printed_on_the_other_terminal(folder):
    with listening(folder), pytest.raises(UserspaceProxyError) as caught:
        send_command(["break", "web-9"])
    assert str(caught.value) == "there is no pod 'web-9' (pods: web-1)"


def test_the_directory_of_a_killed_demo_is_skipped(folder):
    with listening(folder):
        pass
    newer = folder.with_name(f"{FOLDER_PREFIX}2")
    newer.mkdir()
    with listening(newer):
        assert send_command(["heal"]) == "did heal"
    with pytest.raises(UserspaceProxyError) as caught:
        send_command(["heal"])
    assert str(caught.value) == "no demo is running (start one: userspace-proxy demo)"


def test_a_demo_folder_path_may_exceed_the_unix_socket_limit(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 120)
    folder = deep / f"{FOLDER_PREFIX}1"
    folder.mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with listening(folder):
        assert send_command(["heal"]) == "did heal"


def test_a_client_that_disconnects_without_a_command_does_not_affect_others(folder):
    silent = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])"
    with listening(folder):
        # The path of a Unix socket is limited to 108 bytes.
        subprocess.run([sys.executable, "-c", silent, "commands"], cwd=folder, check=True)
        assert send_command(["heal"]) == "did heal"


TERMINAL = """
import os, sys
from pathlib import Path
from userspace_proxy_testing.commands.table import DEMO
from userspace_proxy_testing.commands.demo_commands import Commands
from userspace_proxy.errors import UserspaceProxyError

def run(line):
    if line.strip() == "end":
        os._exit(7)
    if line.strip() == "brek":
        raise UserspaceProxyError("unknown command")
    return f"did {line.strip()}"

commands = Commands(Path(sys.argv[1]), run)
commands.show_prompt()
while True:
    commands.wait()
"""


def test_lines_typed_at_the_terminal_are_commands(folder):
    controller, terminal = os.openpty()
    login = (
        "import os, sys; os.login_tty(0); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", login, "-c", TERMINAL, str(folder)]
    with started(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        os.write(controller, b"break web-2\nbrek\n\nend\n")
        assert process.wait(30) == 7
    shown = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(controller, 4096):
            shown += chunk
    os.close(controller)
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert "did break web-2" in [line.removeprefix("demo> ") for line in lines]
    assert "error: unknown command" in [line.removeprefix("demo> ") for line in lines]
    assert shown.count(b"demo> ") == 4


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param("brake web-2", "unknown command 'brake' (did you mean break?)", id="misspelt"),
        (
            "xyzzy",
            "unknown command 'xyzzy' (commands: break, silence, slow, heal, status, explain, help)",
        ),
        pytest.param("break", "break takes the name of one pod (pods: )", id="no-name"),
        pytest.param("break web-2", "there is no pod 'web-2' (pods: )", id="no-pod"),
    ],
)
def test_an_invalid_demo_command_is_rejected_with_a_suggestion_or_the_choices(line, message):
    with pytest.raises(UserspaceProxyError) as caught:
        Tour().run(line)
    assert str(caught.value) == message


@pytest.mark.parametrize("line", ["help", ""], ids=["help", "empty"])
def test_help_lists_the_demo_commands_and_status_explain_and_help(line):
    listed = [text.split()[0] for text in Tour().run(line).splitlines()]
    assert listed == [*DEMO.choices, "status", "explain", "help"]


def test_the_terminals_width_is_sent_only_if_stdout_is_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "97")
    assert COLUMNS_SHOWN not in demo_commands._environment()
    monkeypatch.setattr("sys.stdout", Terminal())
    assert demo_commands._environment()[COLUMNS_SHOWN] == "97"
