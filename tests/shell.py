"""Shell scripts of tests, and Python programs that other programs start by their paths.

The proxy under test also takes the lock of the legacy tables, and programs that edit these tables
fail while it is held. With ``-w`` they wait, so scripts here always use it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

_LOCK_DEADLINE_S = 60
# Only bash allows a dash in a function name.
_WAITING = "\n".join(
    f'{program}() {{ command {program} -w {_LOCK_DEADLINE_S} "$@"; }}'
    for ip in ("iptables", "ip6tables")
    for program in (ip, f"{ip}-legacy", f"{ip}-legacy-restore")
)


def script(text: str) -> list[str]:
    """Return the command that runs a script, which ends at the first command that fails."""
    return ["bash", "-ec", f"{_WAITING}\n{text}"]


def write_program(path: Path, text: str) -> None:
    """Write an executable Python program."""
    code = path.with_name(f"{path.name}.py")
    code.write_text(text)
    # The kernel doesn't accept an interpreter path with a space.
    path.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(code)])} "$@"\n')
    path.chmod(0o755)
