"""A command's output passes unchanged, and silence has the time in it."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.processes import started

PROGRAM = [sys.executable, str(Path(__file__).with_name("progress.py"))]
SHORT = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import progress; "
SHORT += "sys.exit(progress.run(sys.argv[1:], 0.05))"


def test_output_and_status_are_the_commands() -> None:
    command = [*PROGRAM, "sh", "-c", "echo out; echo err >&2; exit 3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("out\nerr\n", "", 3)


def test_silence_has_the_time_in_it() -> None:
    # The command waits for what it is told once a time was seen.
    command = [sys.executable, "-c", SHORT, "sh", "-c", "printf building; read x; echo done"]
    with started(command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = process.stdout.read(len("building [0:00] "))
        process.stdin.write("go on\n")
        process.stdin.flush()
        rest = process.stdout.read()
    assert seen == "building [0:00] "
    assert re.fullmatch(r"(?: \[0:\d\d\] )*done\n", rest)


def test_a_signal_ends_the_command_and_is_its_status() -> None:
    with started([*PROGRAM, "sh", "-c", "echo ready; read x"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM


def test_sigterm_ends_what_a_shell_has_started() -> None:
    script = "sh -c 'echo $$; exec sleep 600'; echo not reached"
    with started([*PROGRAM, "bash", "-c", script]) as process:
        assert process.stdout is not None
        ended = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)
        assert process.stdout.read() == ""


def test_it_ends_with_the_command_and_not_with_what_that_leaves_behind() -> None:
    # The orphan holds the output open until the pipe that it reads is closed.
    reader, writer = os.pipe()
    command = [*PROGRAM, "bash", "-c", f"cat <&{reader} & echo done"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, pass_fds=[reader])
    os.close(writer)
    os.close(reader)
    assert (done.stdout, done.returncode) == ("done\n", 0)


def test_output_that_nothing_takes_ends_the_command() -> None:
    command = f"{shlex.join([*PROGRAM, 'yes'])} | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("y\n", "")


def test_a_terminal_stays_one_of_the_same_size() -> None:
    inner = shlex.join([*PROGRAM, "sh", "-c", "test -t 1 && stty size <&1"])
    outer = ["script", "--quiet", "--return", "--command", f"stty rows 40 cols 99; {inner}"]
    done = subprocess.run([*outer, "/dev/null"], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == ("40 99", 0)
