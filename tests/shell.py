"""Builds shell scripts, and Python programs that other programs start by path.

The proxy under test also acquires the lock of the legacy tables, and programs that edit these
tables fail while it is held. With ``-w`` they wait, so scripts here always use this flag.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

_LOCK_DEADLINE_S = 60
# Only bash allows a hyphen in a function name.
_WAITING = "\n".join(
    f'{program}() {{ command {program} -w {_LOCK_DEADLINE_S} "$@"; }}'
    for ip in ("iptables", "ip6tables")
    for program in (ip, f"{ip}-legacy", f"{ip}-legacy-restore")
)


def script(text: str) -> list[str]:
    """Return a command that runs a script, up to the first failing command."""
    return ["bash", "-ec", f"{_WAITING}\n{text}"]


def write_program(path: Path, text: str) -> None:
    """Write an executable Python program."""
    code = path.with_name(f"{path.name}.py")
    code.write_text(text)
    # A shebang can't contain an interpreter path with a space, so sh executes the interpreter.
    path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(code)])} "$@"\n')
    path.chmod(0o755)
