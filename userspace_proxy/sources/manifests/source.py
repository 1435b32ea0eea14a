"""Publishes Services from YAML or JSON files, and watches the files for edits.

    event ──▶ look ──SETTLE_S──▶ look: the same? ──▶ parse changed files ──▶ publish

A thread reads the files. Network file systems report no events, nor does inotify when there are no
more watches; then files are checked every POLL_S seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...clocks import Clocks
from ...cluster import Snapshot
from ...log_fields import FieldLogger
from ...logged_condition import LoggedCondition
from ..base import Pause, Publish, Source, SourceStatus, pause
from .file_events import FileEvents
from .files import FileWatch
from .state import ManifestState

_log = FieldLogger("userspace_proxy.sources")

POLL_S = 0.5
"""Seconds between two checks without events. A check of 500 files takes 2 ms."""
QUIET_POLL_S = 5.0
"""Seconds between two checks with events, in case some are lost."""
SETTLE_S = 0.05
"""Seconds between two checks while a file changes; saving a file in an editor takes less."""
SERVICE_CIDRS = ("10.96.0.0/16",)
"""The first /16 network of kubeadm's default, 10.96.0.0/12."""


class ManifestSource(Source):
    """A source that reads Service, EndpointSlice, Endpoints and Node objects from files.

    Args:
        path: A file, or a folder with ``*.yaml``, ``*.yml`` and ``*.json`` files.
        node_name: The name of this node's Node object; empty if there is none.
        service_cidrs: The ranges of cluster IPs: one, or one per family, the default family first.

    Raises:
        ConfigError: ``service_cidrs`` are invalid.
    """

    kind = "manifests"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        node_name: str = "",
        service_cidrs: Sequence[str] = SERVICE_CIDRS,
        poll_s: float = POLL_S,
        quiet_poll_s: float = QUIET_POLL_S,
        settle_s: float = SETTLE_S,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
    ) -> None:
        self.location = os.fspath(path)
        self._files = FileWatch(Path(path))
        self._state = ManifestState(node_name=node_name, service_cidrs=service_cidrs)
        self._events = FileEvents(Path(path))
        self._poll_s = poll_s
        self._quiet_poll_s = quiet_poll_s
        self._settle_s = settle_s
        self._clock = clock
        self._pause = pause
        self._is_deaf = False
        """Whether the last change was found although no event reported it."""
        self._is_synced = False
        self._unread_since: float | None = None
        """The clock's seconds when files became unreadable; None if all files can be read."""
        self._deafness = LoggedCondition[str](
            _log,
            "cannot watch manifests, polling them: %(cause)s",
            "watching manifests again",
            fields=lambda cause: {"cause": cause, "every_s": poll_s},
        )
        self._condition = LoggedCondition[str](
            _log, "manifest problem: %(cause)s", "manifest problems resolved"
        )
        self._findings = LoggedCondition[str](
            _log, "manifest is ambiguous: %(cause)s", "manifests are no longer ambiguous"
        )
        self._ignored = LoggedCondition[str](
            _log,
            "manifest object ignored: %(cause)s",
            "manifest objects are no longer ignored",
            level=logging.INFO,
        )

    @property
    def identity(self) -> str:
        return str(Path(self.location).absolute())

    def check(self) -> None:
        self._files.check()

    def resume(self, snapshot: Snapshot) -> None:
        self._state.resume(snapshot)

    async def run(self, publish: Publish) -> None:
        """Read and publish until cancelled; see :meth:`.Source.run`.

        Raises:
            SourceError: The path can't be listed. If that happens later, ``status`` reports the
                problem, and the last content is still used.
        """
        published: Snapshot | None = None
        try:
            is_settling = await asyncio.to_thread(self._first_look)
            while True:
                self._report()
                if self._state.snapshot is not published:
                    published = self._state.snapshot
                    publish(published)
                    self._is_synced = True
                if is_settling:
                    await self._pause(self._settle_s)
                else:
                    is_polling = self._is_deaf or self._events.problem
                    poll_s = self._poll_s if is_polling else self._quiet_poll_s
                    await self._events.wait(self._pause(poll_s))
                is_settling = await asyncio.to_thread(self._look)
        finally:
            self._events.close()

    def status(self) -> SourceStatus:
        return SourceStatus(
            is_synced=self._is_synced,
            is_current=self._is_synced and not self._state.unread,
            behind_s=self._clock() - self._unread_since if self._unread_since is not None else 0.0,
            problems=self._condition.now,
            rejected=self._state.rejected,
        )

    def _first_look(self) -> bool:
        self._events.follow(())
        self._state.take(self._files.first_look())
        return bool(self._files.links) and self._events.follow(self._files.links)

    def _look(self) -> bool:
        """Read changed files; return whether to check again soon."""
        self._events.take()
        look = self._files.look(self._events.writing)
        if look.texts or look.gone:
            self._is_deaf, self._events.has_heard = not self._events.has_heard, False
        self._state.take(look)
        return self._events.follow(self._files.links) or look.is_settling

    def _report(self) -> None:
        """Log new problems, and the end of the last problem."""
        self._deafness.set(self._events.problem)
        self._condition.set(*self._state.problems, path=self.location)
        self._findings.set(*self._state.findings)
        if not self._state.unread:
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = self._clock()
        self._ignored.set(*self._state.ignored)


def load_state(
    path: str | os.PathLike[str],
    *,
    node_name: str = "",
    service_cidrs: Sequence[str] = SERVICE_CIDRS,
) -> ManifestState:
    """Read manifests once, without watching them.

    Raises:
        SourceError: The path doesn't exist, or can't be listed.
        ConfigError: ``service_cidrs`` are invalid, as for :class:`ManifestSource`.
    """
    state = ManifestState(node_name=node_name, service_cidrs=service_cidrs)
    state.take(FileWatch(Path(path)).first_look())
    return state
