"""Limits what the proxy's processes may use, by a control group of this machine."""

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
    """A control group with one controller; works with both versions of the kernel's interface.

    Args:
        controller: ``cpu``, ``memory`` or ``pids``.
    """

    def __init__(self, controller: str) -> None:
        tree = _ROOT / controller
        self.is_v1 = tree.is_dir()
        self._parent = tree if self.is_v1 else _ROOT
        self._folder = self._parent / f"userspace-proxy-{os.getpid()}-{next(_NUMBERS)}"
        try:
            if not self.is_v1:
                (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
            self._folder.mkdir()
        except OSError as exc:
            pytest.skip(f"cannot create a control group: {exc}")

    def add(self, pids: Iterable[int]) -> None:
        """Put processes into the group; their children follow."""
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

    def limit_processes(self, count: int) -> None:
        """Limit the number of processes and threads in the group."""
        self._write(self._folder, "pids.max", str(count))

    def count_processes(self) -> int:
        """Return how many processes and threads are in the group."""
        return int((self._folder / "pids.current").read_text())

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
                # A process began or ended in this moment.
                return False
            return True

        wait_for("the end of the control group", is_removed)

    def _write(self, folder: Path, name: str, text: str) -> None:
        (folder / name).write_text(text)
