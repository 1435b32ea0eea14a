"""Wakes the source when a file or link on which its manifests depend changes.

    /etc/shop               web.yaml ─link─▶ ..data/web.yaml, where ..data ─link─▶ ..7
    watched: shop in /etc   all in shop      ..data in shop                        web.yaml in ..7

Rule 1: an event only triggers a scan, which finds the changes, so lost events are harmless.
Rule 2: links are watched in their folders, and the path in its parent, because editors, the kubelet
and git replace names, not contents.
Rule 3: without inotify, or with too few watches, ``problem`` is set, and the source polls.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...kernel.inotify import CONTENTS, NAMES, FileEvent, Inotify, What
from .files import is_manifest

_HINTS = {
    errno.ENOSPC: "raise the sysctl fs.inotify.max_user_watches",
    errno.EMFILE: "raise the sysctl fs.inotify.max_user_instances, or the limit of open files",
}
LINKS_MAX = 40
"""The maximum number of links on one path, as in the kernel."""


@dataclass(slots=True)
class _Folder:
    """The watched names in one folder."""

    names: dict[str, str] = field(default_factory=dict)
    """For each name, the path of the manifest in :class:`FileWatch` that depends on it."""
    whole: str | None = None
    """The folder's path if all manifests in it are watched; otherwise None."""
    mask: What = NAMES

    def manifest(self, name: str) -> str | None:
        """Return the path of the manifest that an event concerns; None if there is none."""
        if name in self.names:
            return self.names[name]
        return None if self.whole is None or not is_manifest(name) else str(Path(self.whole, name))


class FileEvents:
    """The inotify watches for the manifests under one path; not thread-safe; must be closed."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._inotify: Inotify | None = None
        self._folders: dict[int, _Folder] = {}
        """Folders by the number of their watch."""
        self.problem = ""
        """Why some files can't be watched; empty if all can be watched."""
        self.writing: set[str] = set()
        """Paths of manifests that a program has changed but not closed yet."""
        self.has_heard = False
        """Whether an event about a manifest was read; the caller resets this."""

    def follow(self, links: Iterable[str]) -> bool:
        """Watch the folders that now contain the path and links; return whether a watch is new."""
        self.problem = ""
        try:
            self._inotify = self._inotify or Inotify()
        except OSError as exc:
            self.problem = _problem("inotify", exc)
            return False
        before = self._folders.keys()
        self._folders = dict(self._watch(self._inotify, self._wanted(links)))
        if ended := before - self._folders.keys():
            # No event reports the end of a write in a folder that is no longer watched.
            self.writing.clear()
            for watch in ended:
                self._inotify.unwatch(watch)
        return not self._folders.keys() <= before

    def _wanted(self, links: Iterable[str]) -> Mapping[str, _Folder]:
        folders: defaultdict[str, _Folder] = defaultdict(_Folder)
        for path in (self._path, *links):
            absolute = str(Path(path).absolute())
            for folder, name in _links_to(absolute):
                folders[folder].names[name] = path
            real = Path(os.path.realpath(absolute))
            folders[str(real.parent)].names[real.name] = path
            if path == self._path and real.is_dir():
                folders[str(real)].whole = path
                folders[str(real)].mask |= CONTENTS
            else:
                folders[str(real.parent)].mask |= CONTENTS
        return folders

    def _watch(
        self, inotify: Inotify, folders: Mapping[str, _Folder]
    ) -> Iterator[tuple[int, _Folder]]:
        for path, folder in folders.items():
            try:
                yield inotify.watch(path, folder.mask), folder
            except (FileNotFoundError, NotADirectoryError):
                continue  # The next check reports the error.
            except OSError as exc:
                # If the parent can't be read, that matters only when the path itself is replaced.
                if not isinstance(exc, PermissionError) or CONTENTS in folder.mask:
                    self.problem = _problem(f"inotify: {path}", exc)

    def take(self) -> bool:
        """Read the events since the last call; return whether any concerns a manifest."""
        is_about_us = False
        for event in self._inotify.read() if self._inotify else ():
            if self._note(event):
                is_about_us = self.has_heard = True
        return is_about_us

    def _note(self, event: FileEvent) -> bool:
        if What.Q_OVERFLOW in event.mask:
            self.writing.clear()
            return True
        folder = self._folders.get(event.watch)
        if folder is None:
            return False
        if not event.name:
            return True
        manifest = folder.manifest(event.name)
        if manifest is None:
            return False
        if What.MODIFY in event.mask:
            self.writing.add(manifest)
        else:
            self.writing.discard(manifest)
        return True

    async def wait(self, timer: Awaitable[None]) -> None:
        """Wait until a timer ends or an event concerns a manifest."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_ended(timer)), group.create_task(self._heard())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()

    async def _heard(self) -> None:
        if self._inotify is None:
            await asyncio.Event().wait()  # This never returns: the timer ends it.
            return
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._inotify.fileno(), ready.set)
        try:
            while not self.take():
                ready.clear()
                await ready.wait()
        finally:
            loop.remove_reader(self._inotify.fileno())

    def close(self) -> None:
        if self._inotify is not None:
            self._inotify.close()


def _problem(what: str, exc: OSError) -> str:
    hint = _HINTS.get(exc.errno or 0)
    return f"{what}: {exc.strerror}{f' ({hint})' if hint else ''}"


async def _ended(timer: Awaitable[None]) -> None:
    await timer


def _links_to(path: str) -> Iterator[tuple[str, str]]:
    """Yield folder and name of each link in a path."""
    here, rest, links = "/", _parts(path), 0
    while rest and links < LINKS_MAX:
        name = rest.pop()
        if name == "..":
            here = str(Path(here).parent)
            continue
        try:
            target = str(Path(here, name).readlink())
        except OSError:  # The path isn't a symbolic link, or doesn't exist.
            here = str(Path(here, name))
            continue
        yield here, name
        links += 1
        rest += _parts(target)
        here = "/" if target.startswith("/") else here


def _parts(path: str) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
