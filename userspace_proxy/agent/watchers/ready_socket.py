"""Answers over a Unix socket whether this process serves its source's Services, or why not.

    probe in the container ── connects ──▶ nothing: it serves
                                           a line:  why it doesn't serve yet

In the node's network, another process may answer on this proxy's ports: kube-proxy until its
removal, or the previous process. A socket in the container's own file system belongs only to this
process, so a rollout that probes the socket stops if a pod doesn't serve.

Rule 1: serving the saved state doesn't suffice: an unreadable source should stop a rollout.
Rule 2: once this process serves, the answer never changes: a source that fails later isn't a reason
for a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from ...log_fields import FieldLogger
from ...plane import Plane
from ...sources import Source
from ..rounds.changes import Progress
from ..rounds.component import Component
from ..rounds.tasks import Supervisor, pause

_log = FieldLogger("userspace_proxy.agent")

_LOOK_S = 0.1


class ReadySocket(Component):
    """The socket on which one proxy answers probes.

    Args:
        path: The path; an existing file is replaced, because a killed process leaves its socket.
    """

    def __init__(
        self,
        path: str,
        source: Source,
        progress: Progress,
        plane: Plane,
        *,
        pause: Callable[[float], Awaitable[None]] = pause,
    ) -> None:
        self._path = path
        self._source = source
        self._progress = progress
        self._plane = plane
        self._pause = pause
        self._serves = False
        self._server: asyncio.Server | None = None

    async def start(self, supervisor: Supervisor) -> None:
        try:
            self._remove()
            self._server = await asyncio.start_unix_server(self._answer, self._path)
        except OSError as exc:
            cause = {"path": self._path, "cause": exc.strerror or str(exc)}
            _log.error("cannot answer probes at %(path)s: %(cause)s", extra=cause)
            return
        supervisor.start("ready socket", self.run)

    async def run(self) -> None:
        """Record that this process serves, once all workers serve the source's snapshot."""
        while not self._source.status().is_synced:
            await self._pause(_LOOK_S)
        await self._progress.caught_up()
        await self._plane.serves(lambda: self._pause(_LOOK_S))
        self._serves = True

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            with contextlib.suppress(OSError):
                self._remove()

    def _remove(self) -> None:
        Path(self._path).unlink(missing_ok=True)

    def unready_reason(self) -> str:
        """Return why this process doesn't serve yet; empty if it does."""
        if self._serves:
            return ""
        status = self._source.status()
        if not status.is_synced:
            what = f"{self._source.location} has not been read yet"
            return next(iter(status.problems), what)
        return "the first plan isn't applied yet"

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.unready_reason().encode())
        writer.close()
