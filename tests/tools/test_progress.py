"""A command's output and status are its own, the time is written, and SIGTERM ends it."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
from pathlib import Path

from tests.processes import started

PROGRAM = [sys.executable, str(Path(__file__).with_name("progress.py"))]
SHORT = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import progress; "
SHORT += "sys.exit(progress.run(sys.argv[1:], 0.05))"


def test_the_time_is_in_the_commands_output_and_its_status_is_kept() -> None:
    # The command waits for what it is told once a time was seen.
    command = [
        sys.executable,
        "-c",
        SHORT,
        "sh",
        "-c",
        "printf building; read x; echo done; exit 3",
    ]
    with started(command) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        seen = process.stdout.read(len("building [0:00] "))
        process.stdin.write("go on\n")
        process.stdin.flush()
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 3
    assert seen == "building [0:00] "
    assert re.fullmatch(r"(?: \[0:\d\d\] )*done\n", rest)


def test_sigterm_ends_what_a_shell_has_started() -> None:
    script = "sh -c 'echo $$; exec sleep 600'; echo not reached"
    with started([*PROGRAM, "bash", "-c", script]) as process:
        assert process.stdout is not None
        ended = os.pidfd_open(int(process.stdout.readline()))
        process.send_signal(signal.SIGTERM)
        assert select.select([ended], [], [], 60)[0]
        os.close(ended)
        assert process.stdout.read() == ""
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
