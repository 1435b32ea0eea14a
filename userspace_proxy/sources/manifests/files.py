"""Finds manifest files, and reads changed files.

    look() ──stat all──▶ same as in the last look? ──▶ read ──▶ Look(texts, gone, problems)
                         └─ no: it is being written; look again soon

Rule 1: a changed file is used once two looks agree and no program is writing it, because editors
truncate a file, write it, or first move the old file away. A missing file counts as deleted once no
other file changes, because a folder may be deleted and filled again.
Rule 2: a file that can't be read is a problem, and its last content is still used.
Rule 3: a problem is over only after a check that has read everything: when descriptors are scarce,
checks alternately succeed and fail.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import SourceError
from ...model.document import decode

SUFFIXES = (".yaml", ".yml", ".json")
FILE_BYTES_MAX = 64 << 20
"""The maximum size of a file: 250,000 Services of 250 bytes, the usual size."""
UNSETTLED_LOOKS_MAX = 200
"""After this many checks, over ten seconds, a file that keeps changing is read anyway."""

_NO_FILE = "it is a pipe, a socket or a device (write a file there, or a link to one)"
_NO_TARGET = "it is a link to a file that doesn't exist (restore that file, or remove the link)"
_SHORTAGES = (errno.EMFILE, errno.ENFILE)
# The flag for opening a file without blocking. Windows, where `explain` also reads manifests, has
# neither this flag nor pipes in folders.
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)

Fingerprint = tuple[int, ...]
"""Times, size, inode and device: at least one changes if a file's content may have changed."""


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one check of the files."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """The content of new and changed files, by path."""
    gone: frozenset[str] = frozenset()
    problems: Mapping[str, str] = field(default_factory=dict)
    """The problems of unreadable files, or of the path itself, by path; one line each."""
    is_settling: bool = False
    """Whether some file is changing, so that the caller must check again soon."""


class FileWatch:
    """The manifests under one path; not thread-safe.

    Args:
        path: A file, or a folder with ``*.yaml``, ``*.yml`` and ``*.json`` files; hidden files
            and subfolders are ignored. Links are followed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_as: dict[str, Fingerprint] = {}
        """The fingerprint of each file when it was read."""
        self._changing: dict[str, tuple[Fingerprint | None, int]] = {}
        """By changed file: the last fingerprint (None if missing), and checks since it changed."""
        self._unread: dict[str, str] = {}
        """The files that can't be read, with their problems."""
        self._is_lost = False
        """Whether the path itself couldn't be listed at the last check."""
        self.links: frozenset[str] = frozenset()
        """The files that were links at the last check."""
        self._problems: Mapping[str, str] = {}
        """The problems at the last check."""

    def first_look(self) -> Look:
        """Read all files immediately.

        Raises:
            SourceError: The path doesn't exist, or can't be listed.
        """
        found, problems = self._list_all()
        return self._read(found, found, problems)

    def check(self) -> None:
        """Raise SourceError if :meth:`first_look` would."""
        self._list_all()

    def _list_all(self) -> tuple[dict[str, Fingerprint], dict[str, str]]:
        try:
            return self._list()
        except OSError as exc:
            raise SourceError(
                f"cannot read manifests from {self._path}: {exc.strerror}",
                hint="give a YAML or JSON file, or a folder of them",
            ) from exc

    def look(self, writing: Collection[str] = ()) -> Look:
        """Read changed files that are the same as at the last check, or that change for too long.

        Args:
            writing: Files known to be written by programs.
        """
        try:
            found, problems = self._list()
        except OSError as exc:
            return self._lost(exc)
        self._is_lost = False
        names = (found.keys() | self._read_as.keys()) - problems.keys()
        changed = {n: found.get(n) for n in names if found.get(n) != self._read_as.get(n)}
        same = {n for n, seen in changed.items() if n not in writing and self._is_same(n, seen)}
        is_quiet = len(same) == len(changed)
        settled = {
            n
            for n in changed
            if (n in same and (is_quiet or n in found)) or self._looks(n) >= UNSETTLED_LOOKS_MAX
        }
        self._changing = {n: (seen, self._looks(n) + 1) for n, seen in changed.items()}
        return self._read(found, settled, problems, is_settling=len(settled) < len(changed))

    def _lost(self, exc: OSError) -> Look:
        """Return a result that keeps all contents, with the error from the second failure on."""
        if exc.errno in _SHORTAGES:
            return Look(problems=self._problems)
        if not self._is_lost:
            self._is_lost = True
            return Look(problems=self._problems, is_settling=True)
        self._problems = {str(self._path): f"{self._path}: cannot read: {exc.strerror}"}
        return Look(problems=self._problems)

    def _is_same(self, name: str, seen: Fingerprint | None) -> bool:
        """Return whether a changed file is the same as at the last check."""
        return name in self._changing and self._changing[name][0] == seen

    def _looks(self, name: str) -> int:
        """Return the number of checks since a file began to change."""
        return self._changing[name][1] if name in self._changing else 0

    def _read(
        self,
        found: Mapping[str, Fingerprint],
        names: Collection[str],
        problems: Mapping[str, str],
        *,
        is_settling: bool = False,
    ) -> Look:
        texts = {}
        is_complete = not is_settling
        gone = frozenset(names) - found.keys()
        for name in gone:
            self._read_as.pop(name, None)
        # Visit all of _unread, because files that were never read aren't in _read_as.
        for name in self._unread.keys() - found.keys():
            del self._unread[name]
        for name in sorted(found.keys() & frozenset(names)):
            try:
                texts[name], self._read_as[name] = _read_file(name)
                self._unread.pop(name, None)
            except OSError as exc:
                # The next check retries, because a file may become readable without being changed.
                if exc.errno in _SHORTAGES and (name in self._read_as or name in self._unread):
                    is_complete = False
                    continue
                self._unread[name] = f"{name}: cannot read: {exc.strerror}"
        problems = {**self._unread, **problems}
        if not found and not self._read_as and not problems:
            endings = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
            problems[str(self._path)] = f"{self._path}: contains no manifests ({endings})"
        if not is_complete:
            problems = {**self._problems, **problems}
        self._problems = problems
        return Look(texts, gone, problems, is_settling)

    def _list(self) -> tuple[dict[str, Fingerprint], dict[str, str]]:
        """Return the files under the path, and problems of other entries; update :attr:`links`.

        Raises:
            OSError: The path itself can't be listed.
        """
        status = self._path.stat()
        if stat.S_ISREG(status.st_mode):
            return {str(self._path): _fingerprint(status)}, {}
        found: dict[str, Fingerprint] = {}
        problems: dict[str, str] = {}
        links = set()
        with os.scandir(self._path) as entries:
            for entry in entries:
                if not is_manifest(entry.name):
                    continue
                if entry.is_symlink():
                    links.add(entry.path)
                try:
                    status = entry.stat()
                except OSError as exc:
                    # A file that was just removed isn't a problem, but a dangling link is.
                    if entry.path in links:
                        why = _NO_TARGET if exc.errno == errno.ENOENT else exc.strerror
                        problems[entry.path] = f"{entry.path}: cannot read: {why}"
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[entry.path] = _fingerprint(status)
                elif not stat.S_ISDIR(status.st_mode):
                    problems[entry.path] = f"{entry.path}: cannot read: {_NO_FILE}"
        self.links = frozenset(links)
        return found, problems


def is_manifest(name: str) -> bool:
    """Return whether a file in a folder is a manifest, judged by the file's name."""
    return not name.startswith(".") and name.endswith(SUFFIXES)


def _read_file(name: str) -> tuple[str, Fingerprint]:
    """Return a file's text, and its fingerprint from before it was read."""
    # The file may have been replaced by a pipe, whose opening would wait for a writer.
    with open(os.open(name, os.O_RDONLY | _NO_WAIT), "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, _NO_FILE)
        fingerprint = _fingerprint(status)
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise OSError(errno.EFBIG, f"it is larger than {FILE_BYTES_MAX >> 20} MiB; split it")
    return decode(data), fingerprint


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return (
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_size,
        status.st_ino,
        status.st_dev,
    )
