"""Processes of the agent under test: workers, their exits, and running as another user."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import userspace_proxy
import userspace_proxy_testing
from tests.users import OTHER_UID

_PACKAGES = (userspace_proxy, userspace_proxy_testing)


def child_pids(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_alive(pid: int) -> bool:
    """Return whether a process still runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def descriptors_of(pids: Iterable[int]) -> Iterator[list[int]]:
    """Yield pidfds of those processes that exist; not only their parents can poll them."""
    opened = []
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                opened.append(os.pidfd_open(pid))
        yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


def run_without_capabilities(script: str) -> str:
    """Run a Python script without capabilities in this thread's namespaces; return its output."""
    return subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        check=True,
    ).stdout


def copy_packages(target: Path, *roots: Path) -> None:
    """Copy both packages to a folder that all users can read.

    Args:
        roots: The folders that contain them, or one of them.
    """
    for root in roots:
        for package in _PACKAGES:
            if (folder := root / package.__name__).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(folder, target / folder.name, ignore=ignored)
    subprocess.run(["chmod", "--recursive", "a+rX", target], check=True)


def _are_private(root: Path) -> bool:
    """Return whether only their owner may read some of the packages."""
    files = (
        root / each.__name__ / "__init__.py" for each in (userspace_proxy, userspace_proxy_testing)
    )
    return any(file.exists() and not file.stat().st_mode & stat.S_IROTH for file in files)


@contextlib.contextmanager
def readable_folder() -> Iterator[Path]:
    """Yield a folder that every user may read, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def readable_runtime(
    *roots: Path,
) -> Iterator[tuple[list[str], str, dict[str, str]]]:
    """Yield what is needed to run this interpreter and the packages as another user.

    A user without privileges may be unable to read their files, for instance below ``/root``, so
    they are mounted on a folder that every user may read, in a mount namespace. Files with private
    modes, such as those of a clone with umask 077, are copied there.

    Args:
        roots: The folders that contain the two packages; by default, where this process has them.

    Yields:
        The prefix of a command, the interpreter, and the variables that it needs.
    """
    packages = [path for path in sys.path if path.endswith("site-packages")]
    own = (Path(each.__file__).parents[1] for each in _PACKAGES)
    shown = [sys.base_prefix, *map(str, roots or own), *packages]
    with readable_folder() as folder:
        targets = [f"{folder}/{number}" for number in range(len(shown))]
        mounts = []
        for path, target in zip(shown, targets, strict=True):
            Path(target).mkdir()
            if _are_private(Path(path)):
                copy_packages(Path(target), Path(path))
            else:
                mounts.append(f"mount --bind {shlex.quote(path)} {target}; ")
        drop = f"setpriv --reuid {OTHER_UID} --regid {OTHER_UID} --clear-groups"
        prefix = ["unshare", "--mount", "sh", "-ec", f'{"".join(mounts)}exec {drop} -- "$@"', "sh"]
        minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
        environment = {
            "PYTHONPATH": os.pathsep.join(targets[1:]),
            # Otherwise a shared libpython would be the system's, or wouldn't be found.
            "LD_LIBRARY_PATH": f"{targets[0]}/lib",
            "PYTHONDONTWRITEBYTECODE": "1",
            # That user can't write coverage data.
            "COVERAGE_PROCESS_CONFIG": "",
            "HOME": "/",
        }
        yield prefix, f"{targets[0]}/bin/{minor}", environment
