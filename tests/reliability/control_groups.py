"""Limits the resources of the proxy's processes by a control group on this machine."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.cluster.waiting import wait_for

_ROOT = Path("/sys/fs/cgroup")
_NUMBERS = itertools.count()


class ControlGroup:
    """A control group with one controller, with either version of the kernel's interface.

    Args:
        controller: ``cpu``, ``memory`` or ``pids``.
    """

    def __init__(self, controller: str) -> None:
        tree = _ROOT / controller
        self.is_v1 = tree.is_dir()
        # The group is below this process's group, whose limits still apply.
        self._parent = _ROOT if not self.is_v1 else tree / _own_path(controller)
        self._folder = self._parent / f"userspace-proxy-{os.getpid()}-{next(_NUMBERS)}"
        try:
            if not self.is_v1:
                (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
            self._folder.mkdir()
        except OSError as exc:
            pytest.skip(f"cannot create a control group: {exc}")

    def add(self, pids: Iterable[int]) -> None:
        """Move processes into the group; their later children are in it, too."""
        for pid in pids:
            self._write(self._folder, "cgroup.procs", str(pid))

    def limit_cpu(self, share: float) -> None:
        """Limit the group to a share of one processor."""
        period_us = 100_000
        quota_us = round(share * period_us)
        if self.is_v1:
            self._write(self._folder, "cpu.cfs_period_us", str(period_us))
            self._write(self._folder, "cpu.cfs_quota_us", str(quota_us))
        else:
            self._write(self._folder, "cpu.max", f"{quota_us} {period_us}")

    def command(self, command: Iterable[str]) -> list[str]:
        """Return a command that starts another command in the group."""
        script = 'echo $$ >"$0"; exec "$@"'
        return ["sh", "-ec", script, str(self._folder / "cgroup.procs"), *command]

    def limit_memory(self, count: int) -> None:
        """Limit the group's memory to this many bytes."""
        name = "memory.limit_in_bytes" if self.is_v1 else "memory.max"
        self._write(self._folder, name, str(count))

    def used_memory(self) -> int:
        """Return the number of bytes charged to the group."""
        name = "memory.usage_in_bytes" if self.is_v1 else "memory.current"
        return int((self._folder / name).read_text())

    def killed_processes(self) -> int:
        """Return the number of processes that the kernel has killed for lack of memory."""
        name = "memory.oom_control" if self.is_v1 else "memory.events"
        lines = (self._folder / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def limit_processes(self, count: int) -> None:
        self._write(self._folder, "pids.max", str(count))

    def close(self) -> None:
        """Move the processes back and remove the group."""

        def is_removed() -> bool:
            for pid in (self._folder / "cgroup.procs").read_text().split():
                try:
                    self._write(self._parent, "cgroup.procs", pid)
                except ProcessLookupError:
                    continue
            try:
                self._folder.rmdir()
            except OSError:
                # A process was started or has exited since the group was read.
                return False
            return True

        wait_for("the end of the control group", is_removed)

    def _write(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)


def _own_path(controller: str) -> str:
    """Return the path of this process's group without the leading slash."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.lstrip("/")
    return ""
