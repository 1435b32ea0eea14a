"""The programs of a real cgroup are read in tests/node/test_other_hooks.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from userspace_proxy.kernel.bpf.other_hooks import read_hooks


def test_a_folder_that_is_none_of_cgroup_v2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Bad file descriptor|Operation not permitted"):
        read_hooks(tmp_path, None)


def test_a_folder_that_is_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_hooks(tmp_path / "gone", None)
