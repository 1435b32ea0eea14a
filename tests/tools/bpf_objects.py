"""Checks that clang compiles each BPF source to the object that git tracks.

    python -m tests.tools.bpf_objects           compiles all, and reports those that differ
    python -m tests.tools.bpf_objects --write   compiles all, and replaces them

Without debug information, an object depends only on the source and on the version of clang, which
must be Debian 12's, because that no longer changes.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = "clang-14"
# By default, later versions of clang use newer instructions.
FLAGS = (
    *("--target=bpf", "-mcpu=v2", "-O2", "-Wall", "-Werror"),
    *("-idirafter", f"/usr/include/{platform.machine()}-linux-gnu"),
)
Compile = Callable[[Path], bytes]
"""Compiles a source; returns the object."""


def sources(root: Path) -> list[Path]:
    """Return the sources that git tracks."""
    command = ["git", "ls-files", "-z", "*.bpf.c"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [root / name for name in done.stdout.split("\0") if name]


def compiled(source: Path) -> bytes:
    """Return the object of a source; raise CalledProcessError after printing clang's output."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "object")
        command = [COMPILER, *FLAGS, "-c", source.name, "-o", str(made)]
        subprocess.run(command, cwd=source.parent, check=True)
        return made.read_bytes()


def problems(files: Sequence[Path], make: Compile) -> Iterator[str]:
    """Yield a line for each object that is missing, or differs from its compiled source."""
    for source in files:
        tracked = source.with_suffix(".o")
        if not tracked.exists():
            yield f"{tracked.name} is missing (make objects WRITE=1)"
        elif tracked.read_bytes() != make(source):
            yield f"{tracked.name} is not what {source.name} makes (make objects WRITE=1)"


def main(words: Sequence[str]) -> int:
    """Compare or replace the objects; return the exit status."""
    if not shutil.which(COMPILER):
        sys.stderr.write(f"cannot compile BPF objects: no {COMPILER} (of Debian 12)\n")
        return 1
    files = sources(ROOT)
    if "--write" in words:
        for source in files:
            source.with_suffix(".o").write_bytes(compiled(source))
    found = list(problems(files, compiled))
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
