"""Stores certificates and keys in files, because OpenSSL accepts only files.

These are memory files (memfd_create), which OpenSSL opens by their paths in /proc/self/fd: files in
a folder would remain after a crash. Systems other than Linux use :class:`TemporaryFiles`.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory


class TemporaryFiles:
    """Files in a folder that only this user may access, which remain after a crash."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="userspace-proxy-")

    def put(self, name: str, content: bytes) -> str:
        path = Path(self._folder.name, name)
        # Don't rewrite unchanged content: a new mtime would make connections reload the
        # certificates.
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        return str(path)

    def close(self) -> None:
        self._folder.cleanup()


class MemoryFiles:
    """Files in memory, by name; they disappear with the process."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, int]] = {}

    def put(self, name: str, content: bytes) -> str:
        """Put content into a named file; return its path, which changes only with the content."""
        have, descriptor = self._files.get(name, (None, -1))
        if have != content:
            self._close(descriptor)
            descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
            self._files[name] = content, descriptor
            with os.fdopen(os.dup(descriptor), "wb") as stream:
                stream.write(content)
        return f"/proc/self/fd/{descriptor}"

    def close(self) -> None:
        """Remove all files; idempotent."""
        files, self._files = self._files, {}
        for _, descriptor in files.values():
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor >= 0:
            os.close(descriptor)


KeyFiles = MemoryFiles | TemporaryFiles


def make_key_files() -> KeyFiles:
    """Return memory files if the system has them, otherwise temporary files."""
    return MemoryFiles() if hasattr(os, "memfd_create") else TemporaryFiles()
