"""Tests of reading files up to a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from userspace_proxy.bounded_file import read_bounded


def test_a_file_of_the_maximum_size_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 2048)
    assert read_bounded(tmp_path / "a", 2048) == b"x" * 2048


def test_a_file_above_the_maximum_size_is_an_error(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 2049)
    with pytest.raises(OSError, match="it is larger than 2 KiB"):
        read_bounded(tmp_path / "a", 2048)


def test_reading_an_endless_device_is_an_error():
    with pytest.raises(OSError, match="it is larger than 1 MiB: '/dev/zero'"):
        read_bounded(Path("/dev/zero"), 1 << 20)
