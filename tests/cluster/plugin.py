"""Provides the kubectl plugin: a script that runs this program like the installed script."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

PLUGIN = "kubectl-userspace_proxy"
_CODE = (
    f"import sys; sys.argv[0] = {PLUGIN!r}; from userspace_proxy.cli import main; sys.exit(main())"
)


def write_plugin(folder: Path) -> None:
    """Write the plugin into a folder, which the caller adds to PATH."""
    program = folder / PLUGIN
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(_CODE)} "$@"\n'
    )
    program.chmod(0o755)
