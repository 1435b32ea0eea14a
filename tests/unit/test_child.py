from __future__ import annotations

import signal
import sys
import tempfile

import pytest

from tests.processes import started
from userspace_proxy.child import end_child, start_child


@pytest.fixture
def sleeper():
    with started(["cat"]) as process:
        yield process


def test_a_child_runs_its_function_with_the_connection_and_arguments(tmp_path, monkeypatch):
    (tmp_path / "greeter.py").write_text(
        "import socket\n"
        "def greet(descriptor, *numbers):\n"
        "    with socket.socket(fileno=descriptor) as sock:\n"
        "        sock.send(repr(numbers).encode() + sock.recv(9))\n"
        "    return 3\n",
        encoding="ascii",
    )
    monkeypatch.syspath_prepend(tmp_path)
    process, connection = start_child("greeter:greet", 4, 5)
    with connection:
        connection.send(b" hello")
        assert connection.recv(99) == b"(4, 5) hello"
    assert process.wait() == 3


def test_a_child_can_be_started_by_another_command(tmp_path, monkeypatch):
    (tmp_path / "greeter.py").write_text(
        "import os\ndef greet(_): return int(os.environ['STATUS'])\n", encoding="ascii"
    )
    monkeypatch.syspath_prepend(tmp_path)
    process, connection = start_child("greeter:greet", prefix=["env", "STATUS=5"])
    connection.close()
    assert process.wait() == 5


@pytest.fixture(params=["in-place", "gone", "replaced"])
def executable(request, tmp_path, monkeypatch):
    """Change the interpreter's file as an in-place upgrade may do."""
    if request.param == "in-place":
        return
    path = tmp_path / "python"
    if request.param == "replaced":
        path.write_text("#!/bin/sh\nexit 9\n", encoding="ascii")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.usefixtures("executable")
def test_a_child_runs_the_interpreter_of_this_process(tmp_path, monkeypatch):
    (tmp_path / "greeter.py").write_text(
        "import json, sys\ndef greet(_): return sys.hexversion >> 16 & 255\n", encoding="ascii"
    )
    monkeypatch.syspath_prepend(tmp_path)
    process, connection = start_child("greeter:greet")
    connection.close()
    assert process.wait() == sys.version_info.minor


@pytest.mark.usefixtures("executable")
def test_a_child_imports_no_modules_from_the_current_directory(tmp_path, monkeypatch):
    (tmp_path / "intruder.py").write_text("def main(_): return 0\n", encoding="ascii")
    monkeypatch.chdir(tmp_path)
    with tempfile.TemporaryFile() as errors:
        process, connection = start_child("intruder:main", stderr=errors)
        connection.close()
        assert process.wait() == 1
        errors.seek(0)
        assert errors.read().splitlines()[-1].startswith(b"ModuleNotFoundError")


def test_a_child_exiting_in_time_returns_its_status(sleeper):
    sleeper.stdin.close()
    assert end_child(sleeper, 9.0) == 0


def test_a_child_not_exiting_in_time_is_killed(sleeper):
    assert end_child(sleeper, 0.0) == -signal.SIGKILL


def test_a_child_that_cannot_be_started_leaves_no_connection_open():
    with pytest.raises(OSError, match="No such file"):
        start_child("greeter:greet", prefix=["/no/such/command"])
