"""Services from files: YAML or JSON, watched for edits.

The files are looked at in a thread, twice a second; while something changes, more often,
so that an edit is in force within a second and half of one never is.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ..cluster import Snapshot
from .base import Publish, Source, SourceStatus
from .files import FileWatch
from .manifest_state import ManifestState
from .pause import Pause, pause

_log = logging.getLogger("userspace_proxy.sources")

POLL_S = 0.5
"""Between two looks at the files. A look at 100 files costs 0.4 ms."""
SETTLE_S = 0.1
"""Between two looks while something changes; an editor's save takes less."""
SERVICE_CIDRS = ("10.96.0.0/16",)
"""kubeadm's default is 10.96.0.0/12, of which this is the start."""


class ManifestSource(Source):
    """Reads Service, EndpointSlice, Endpoints and Node objects from files.

    Args:
        path: A file, or a folder whose ``*.yaml``, ``*.yml`` and ``*.json`` count.
        node_name: The Node object of that name is this node's; empty: there is none.
        service_cidrs: Where addresses come from for Services that name none: one range, or
            two of different families, of which the first one's is that of Services that
            ask for none. The same Service gets the same one after a restart.
        state_file: Keeps the addresses and node ports that were given, also where the names
            of two Services meet on one; None: only names decide.
        poll_s: Seconds between two looks at the files.
        settle_s: Seconds between two looks while something changes.

    Raises:
        ConfigError: ``service_cidrs`` aren't such.
    """

    kind = "manifests"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        node_name: str = "",
        service_cidrs: Sequence[str] = SERVICE_CIDRS,
        state_file: Path | None = None,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
        pause: Pause = pause,
    ) -> None:
        self.location = os.fspath(path)
        self._files = FileWatch(Path(path))
        self._state = ManifestState(
            node_name=node_name, service_cidrs=service_cidrs, state_file=state_file
        )
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._pause = pause
        self._is_synced = False
        self._problems: tuple[str, ...] = ()
        self._ignored: frozenset[str] = frozenset()

    def check(self) -> None:
        """Part of Source."""
        self._files.check()

    async def run(self, publish: Publish) -> None:
        """Part of Source.

        Raises:
            SourceError: The path isn't there. A path that vanishes later is a problem
                in ``status``, and what was read last stays in force.
        """
        published: Snapshot | None = None
        wait_s = await asyncio.to_thread(self._first_turn)
        while True:
            self._report()
            if self._state.snapshot is not published:
                published = self._state.snapshot
                publish(published)
                self._is_synced = True
            await self._pause(wait_s)
            wait_s = await asyncio.to_thread(self._turn)

    def status(self) -> SourceStatus:
        """Part of Source."""
        return SourceStatus(is_synced=self._is_synced, problems=self._problems)

    def _first_turn(self) -> float:
        self._state.take(self._files.first_look())
        return self._poll_s

    def _turn(self) -> float:
        """Look at the files and take what is new; return how long to wait."""
        look = self._files.look()
        self._state.take(look)
        return self._settle_s if look.is_settling else self._poll_s

    def _report(self) -> None:
        """Log what is wrong since the last time, and what is well again."""
        problems = self._state.problems
        for line in problems:
            if line not in self._problems:
                _log.warning("manifest problem", extra={"problem": line})
        if self._problems and not problems:
            _log.info("manifest problems resolved", extra={"path": self.location})
        self._problems = problems
        for line in self._state.ignored:
            if line not in self._ignored:
                _log.info("manifest object ignored", extra={"object": line})
        self._ignored = frozenset(self._state.ignored)


def load_manifests(
    path: str | os.PathLike[str],
    *,
    node_name: str = "",
    service_cidrs: Sequence[str] = SERVICE_CIDRS,
) -> tuple[Snapshot, tuple[str, ...]]:
    """Read manifests once, without watching them.

    Args:
        path: As for :class:`ManifestSource`.
        node_name: Likewise.
        service_cidrs: Likewise.

    Returns:
        What they say, and all problems with them, one line each; files with a problem
        give nothing.

    Raises:
        SourceError: The path isn't there.
        ConfigError: ``service_cidrs`` aren't such.
    """
    state = ManifestState(node_name=node_name, service_cidrs=service_cidrs)
    state.take(FileWatch(Path(path)).first_look())
    return state.snapshot, state.problems
