"""Key files for OpenSSL, in memory or readable only by this user."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tests.descriptors import open_descriptors
from userspace_proxy.sources.kubernetes.key_files import (
    MemoryFiles,
    TemporaryFiles,
    make_key_files,
)


def test_this_system_supports_memory_files():
    files = make_key_files()
    assert isinstance(files, MemoryFiles)
    files.close()


def test_a_memory_file_is_reused_while_its_content_is_unchanged():
    descriptors = open_descriptors()
    files = MemoryFiles()
    path = files.put("key", b"first")
    before = Path(path).stat().st_ino
    assert files.put("key", b"first") == path
    assert Path(path).stat().st_ino == before
    changed = files.put("key", b"second")
    assert Path(changed).read_bytes() == b"second"
    assert Path(changed).stat().st_ino != before
    files.close()
    files.close()
    assert open_descriptors() == descriptors


def test_without_memory_files_a_key_is_written_to_a_private_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = TemporaryFiles()
    path = Path(files.put("key", b"first"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    os.utime(path, (1, 1))
    assert files.put("key", b"first") == str(path)
    assert path.stat().st_mtime == 1
    assert Path(files.put("key", b"second")).read_bytes() == b"second"
    files.close()
    files.close()
    assert list(tmp_path.iterdir()) == []
