"""Shell scripts of tests, and Python programs that other programs start by path.

The proxy under test also takes the lock of the legacy tables. Without ``-w``, the iptables programs
fail while it is held; in these scripts they wait.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

_LOCK_DEADLINE_S = 60
# Only bash allows such a name for a function.
_WAITING = "\n".join(
    f'{program}() {{ command {program} -w {_LOCK_DEADLINE_S} "$@"; }}'
    for ip in ("iptables", "ip6tables")
    for program in (ip, f"{ip}-legacy", f"{ip}-legacy-restore")
)


def script(text: str) -> list[str]:
    """Return the command that runs a script; the script stops at its first failed command."""
    return ["bash", "-ec", f"{_WAITING}\n{text}"]


def write_program(path: Path, text: str) -> None:
    """Write a Python program that can be started by its path."""
    code = path.with_name(f"{path.name}.py")
    code.write_text(text)
    # A shebang line can't contain an interpreter whose path has a space.
    path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(code)])} "$@"\n')
    path.chmod(0o755)
