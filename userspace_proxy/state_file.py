"""Stores a proxy's state for its next process, in files that are replaced atomically.

    write   FILE.new ─▶ fsync ─▶ rename to FILE      a crash leaves the old file or the new one
    read    must be a regular file of this user, of bounded size; callers check the age

A file's modification time is the last moment at which its content was known to be current.

Rule 1: methods block, so they are called in threads, one at a time.
Rule 2: a user who can write to the folder can replace the file, so other users' files aren't read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import UserspaceProxyError

FILE_BYTES_MAX = 64 << 20
"""The maximum size of a file: several times the size for 200,000 Services."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class StateFileError(UserspaceProxyError):
    """The file can't be read or written."""


class StateBytes(NamedTuple):
    """A file's content, with its age."""

    data: bytes
    current_at: float
    """Unix time at which the content was last known to be current."""


def state_dir_of(setting: str) -> str:
    """Return the folder for the proxy's state; empty if there is none.

    Source: the XDG Base Directory Specification for XDG_STATE_HOME.
    """
    if setting != "auto":
        return setting
    if os.geteuid() == 0:
        return "/var/lib/userspace-proxy"
    home = os.environ.get("XDG_STATE_HOME", "")
    if not home.startswith("/"):
        try:
            home = str(Path.home() / ".local" / "state")
        except RuntimeError:
            return ""
    return f"{home}/userspace-proxy"


def file_of_proxy(folder: str, name: str, label: str) -> StateFile | None:
    """Return a file of one proxy; None without a folder.

    Args:
        label: The short form of the proxy's name, as part of the file name; may be empty.
    """
    if not folder:
        return None
    stem, _, ending = name.partition(".")
    return StateFile(Path(folder) / (f"{stem}-{label}.{ending}" if label else name))


class StateFile:
    """A file of one proxy.

    Args:
        path: The file's path; its folder is created, with parents.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def read(self) -> StateBytes | None:
        """Return the content; None if there is no such file.

        Raises:
            StateFileError: The file isn't trustworthy, or can't be read.
        """
        try:
            with self._lock, _opened(self.path, _READ) as descriptor:
                status = os.fstat(descriptor)
                self._check(status)
                with open(descriptor, "rb", closefd=False) as file:
                    return StateBytes(file.read(FILE_BYTES_MAX), status.st_mtime)
        except FileNotFoundError:
            return None
        except OSError as exc:
            why = "it is a symbolic link" if exc.errno == errno.ELOOP else exc.strerror
            raise StateFileError(f"cannot use {self.path}: {why}") from exc

    def write(self, data: bytes, *, current_at: float) -> None:
        """Replace the content.

        Args:
            current_at: Unix time at which the content was last known to be current.

        Raises:
            StateFileError: The file can't be written; the old content remains.
        """
        if len(data) > FILE_BYTES_MAX:
            raise StateFileError(
                f"cannot write {self.path}: the state is larger than {FILE_BYTES_MAX >> 20} MiB"
            )
        with self._changing():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _opened(self.path.parent, _FOLDER) as folder:
                self._replace(folder, data, current_at)

    def confirm(self, current_at: float) -> None:
        """Record that the content is still current, by setting only the file's modification time.

        Raises:
            StateFileError: The time can't be written.
        """
        with self._changing():
            os.utime(self.path, (current_at, current_at), follow_symlinks=False)

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise StateFileError(f"cannot use {self.path}: it is not a regular file")
        if status.st_uid != os.geteuid():
            raise StateFileError(f"cannot use {self.path}: it belongs to user {status.st_uid}")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StateFileError(f"cannot use {self.path}: other users may write it")
        if status.st_size > FILE_BYTES_MAX:
            raise StateFileError(
                f"cannot use {self.path}: it is larger than {FILE_BYTES_MAX >> 20} MiB"
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except OSError as exc:
            raise StateFileError(
                f"cannot write {self.path}: {exc.strerror}",
                hint="give --state-dir a folder that this proxy can write, or an empty text",
            ) from exc

    def _replace(self, folder: int, data: bytes, current_at: float) -> None:
        name, new = self.path.name, f"{self.path.name}.new"
        # Remove the temporary file that a crash may have left behind.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new, dir_fd=folder)
        try:
            with open(os.open(new, _CREATE, 0o600, dir_fd=folder), "wb") as file:  # noqa: PTH123
                file.write(data)
                file.flush()
                os.utime(file.fileno(), (current_at, current_at))
                os.fsync(file.fileno())
            os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=folder)
            raise
        os.fsync(folder)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
