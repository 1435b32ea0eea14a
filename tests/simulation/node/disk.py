"""A simulated disk with one node's files, which a crash can damage, and which can be full.

Rule 1: a crash of the node loses data that wasn't fsynced; a crash of a process truncates only the
write in progress.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from random import Random
from types import SimpleNamespace
from typing import Any

FOLDER = "/state"
_FIRST = 900_000


@dataclass
class File:
    """The contents of one file, and the time at which they were written."""

    data: bytes = b""
    mtime: float = 0.0
    is_synced: bool = True
    floor: float = field(default=0.0)
    """The oldest time that the state in it may have."""
    is_torn: bool = False


class Disk:
    """The files of one node, by name.

    Args:
        now: Returns the virtual time.
        unix: Returns Unix time.
        enter: Called before each call; the process may die there.
    """

    def __init__(
        self,
        rng: Random,
        now: Callable[[], float],
        unix: Callable[[], float],
        enter: Callable[[str], None],
    ) -> None:
        self._rng = rng
        self._unix = unix
        self._enter = enter
        self.files: dict[str, File] = {}
        self.floor: Callable[[], float] = now
        """Returns the oldest time that a state written now may have."""
        self.noted: Callable[[str, float], object] = lambda _name, _at: None
        """Called with a file's name, and the Unix time at which its state was current."""
        self.failed: Callable[[], object] = lambda: None
        """Called when a write fails."""
        self.was_read: Callable[[str], object] = lambda _name: None
        """Called with the name of a file that was read."""
        self.fails_with = 0
        """The error of each write; 0 for none."""
        self._opened: dict[int, tuple[str, File]] = {}
        self._number = _FIRST

    @property
    def open_descriptors(self) -> list[str]:
        return [name for name, _ in self._opened.values()]

    def forget_opened(self) -> None:
        """Close the files that a dead process had open."""
        self._opened.clear()

    def tear(self) -> None:
        """Truncate all files at random, as a crash does on a file system without barriers."""
        for file in self.files.values():
            file.data = file.data[: self._rng.randrange(len(file.data) + 1)]
            file.is_torn = True

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        self._enter("open")
        name = PurePosixPath(path).name
        if flags & os.O_DIRECTORY:
            file = File()
        elif flags & os.O_CREAT:
            self._check()
            if name in self.files:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            file = self.files[name] = File(mtime=self._unix(), is_synced=False, floor=self.floor())
        elif name not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        else:
            file = self.files[name]
        self._number += 1
        self._opened[self._number] = (name, file)
        return self._number

    def close(self, descriptor: int) -> None:
        self._enter("close")
        del self._opened[descriptor]

    def fstat(self, descriptor: int) -> Any:
        self._enter("fstat")
        file = self._opened[descriptor][1]
        return SimpleNamespace(
            st_mode=stat.S_IFREG | 0o600, st_uid=0, st_size=len(file.data), st_mtime=file.mtime
        )

    def fsync(self, descriptor: int) -> None:
        self._enter("fsync")
        self._check()
        self._opened[descriptor][1].is_synced = True

    def utime(
        self, where: Any, times: tuple[float, float], *, follow_symlinks: bool = True
    ) -> None:
        self._enter("utime")
        self._check()
        if isinstance(where, int):
            name, file = self._opened[where]
        else:
            name = PurePosixPath(where).name
            if name not in self.files:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            file = self.files[name]
        file.mtime = times[1]
        self.noted(name, times[1])

    def unlink(self, name: str, *, dir_fd: int | None = None) -> None:
        self._enter("unlink")
        if self.files.pop(name, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def rename(
        self, old: str, new: str, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        self._enter("rename")
        self._check()
        file = self.files[new] = self.files.pop(old)
        self.noted(new, file.mtime)

    def _check(self) -> None:
        if self.fails_with:
            self.failed()
            raise OSError(self.fails_with, os.strerror(self.fails_with))

    def names(self) -> dict[str, Any]:
        """Return the names in the module that reads and writes files, with their replacements."""
        names = ("open", "close", "fstat", "fsync", "utime", "unlink", "rename")
        calls = {name: getattr(self, name) for name in names}
        return {
            "os": SimpleNamespace(**{**vars(os), **calls, "geteuid": lambda: 0}),
            "open": self._open_file,
            "Path": _Path,
        }

    def _open_file(self, descriptor: int, mode: str, closefd: bool = True) -> Any:
        return _OpenFile(self, descriptor, is_closing=closefd)


class _Path(PurePosixPath):
    """Simulates Path."""

    def mkdir(self, **_options: Any) -> None:
        """Do nothing: all folders exist."""


class _OpenFile:
    """Simulates a file object."""

    def __init__(self, disk: Disk, descriptor: int, *, is_closing: bool) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self._is_closing = is_closing

    def __enter__(self) -> _OpenFile:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._is_closing:
            self._disk.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def read(self, most: int) -> bytes:
        self._disk._enter("read")
        name, file = self._disk._opened[self._descriptor]
        self._disk.was_read(name)
        return file.data[:most]

    def write(self, data: bytes) -> int:
        """Write the data; a process that dies meanwhile has written only a part."""
        file = self._disk._opened[self._descriptor][1]
        half = len(data) // 2
        file.data += data[:half]
        self._disk._enter("write")
        self._disk._check()
        file.data += data[half:]
        return len(data)

    def flush(self) -> None:
        self._disk._enter("flush")
