"""Reports changes in folders through inotify, by calls of libc: Python has no module for it.

    watch(folder) ──▶ number;   read() ──▶ FileEvent(number, mask, name) …

Rule 1: an event reports that something changed, not the result: read the folder.
Rule 2: a watch stays with a renamed folder; a new folder at the old path isn't watched.

Source: inotify(7); docs/adr/0035.
"""

from __future__ import annotations

import ctypes
import enum
import functools
import os
import struct
from typing import NamedTuple

_HEADER = struct.Struct("iIII")
_READ_BYTES = 64 << 10
_READS_MAX = 64
"""A call reads at most 4 MiB: more than the queue holds by default (16,384 events)."""


class What(enum.IntFlag):
    """Kinds of changes of a watched folder, or of a file in it; the kernel's values."""

    MODIFY = 0x2
    ATTRIB = 0x4
    CLOSE_WRITE = 0x8
    MOVED_FROM = 0x40
    MOVED_TO = 0x80
    CREATE = 0x100
    DELETE = 0x200
    DELETE_SELF = 0x400
    MOVE_SELF = 0x800
    UNMOUNT = 0x2000
    Q_OVERFLOW = 0x4000
    IGNORED = 0x8000
    """The watch has ended, because its folder was deleted or unmounted."""


NAMES = What.CREATE | What.DELETE | What.MOVED_FROM | What.MOVED_TO | What.ATTRIB
"""Changes that add or remove files, or change whether a file can be read."""
CONTENTS = What.MODIFY | What.CLOSE_WRITE
"""Changes of a file's content. Writing to a memory-mapped file causes no event."""
_SELF = What.DELETE_SELF | What.MOVE_SELF
_ONLY_FOLDERS = 0x01000000


class FileEvent(NamedTuple):
    """A change of a watched folder."""

    watch: int
    """The number of the watch; -1 if events were lost (``Q_OVERFLOW``)."""
    mask: What
    name: str
    """The file's name; empty if the event is about the folder itself."""


class Inotify:
    """A set of watched folders; the caller closes it.

    Raises:
        OSError: EMFILE if the user has too many instances (``fs.inotify.max_user_instances``).
    """

    def __init__(self) -> None:
        self._fd = _checked(_libc().inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """Return the descriptor, which is readable when there are events."""
        return self._fd

    def watch(self, folder: str, mask: What) -> int:
        """Watch a folder's files, and whether the folder itself is renamed or deleted.

        Returns: The watch descriptor; the existing descriptor if the folder is already watched.

        Raises:
            OSError: The folder can't be read; ENOSPC: the user has too many watches
                (``fs.inotify.max_user_watches``).
        """
        mask |= _SELF | _ONLY_FOLDERS
        return _checked(
            _libc().inotify_add_watch(self._fd, os.fsencode(folder), ctypes.c_uint(mask))
        )

    def unwatch(self, watch: int) -> None:
        """End a watch, unless it has already ended."""
        _libc().inotify_rm_watch(self._fd, watch)

    def read(self) -> list[FileEvent]:
        """Return the events since the last call; never waits."""
        events: list[FileEvent] = []
        for _ in range(_READS_MAX):
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                break
            events += _parse(data)
        return events

    def close(self) -> None:
        """Close the descriptor; all watches end."""
        os.close(self._fd)


def _parse(data: bytes) -> list[FileEvent]:
    events = []
    at = 0
    while at < len(data):
        watch, mask, _cookie, length = _HEADER.unpack_from(data, at)
        at += _HEADER.size + length
        name = data[at - length : at].rstrip(b"\0")
        events.append(FileEvent(watch, What(mask), os.fsdecode(name)))
    return events


@functools.cache
def _libc() -> ctypes.CDLL:
    # Load libc on first use: manifests are also read on Windows, where CDLL(None) fails.
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
