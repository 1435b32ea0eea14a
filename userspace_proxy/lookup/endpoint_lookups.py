"""Resolves host names that are endpoints of Services, each when its lookup is due.

    source ──take──▶ follow: Services with the latest lookups of their names ──publish──▶
                       ▲ learnt                └─ wakes ─▶ work: a name that is due ─▶ ask DNS
                       └───────────────────────────────────┘

Rule 1: ``cluster.host_queue.SLOTS`` tasks run :meth:`EndpointLookups.work`, so that many names
are looked up at the same time.
Rule 2: a failure is part of the result; a name becomes due again even after a bug. A bug is logged
once for each Service that it affects.
Rule 3: snapshots are derived and published one at a time (``derive``), so they stay in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ..clocks import Clocks
from ..cluster import Snapshot
from ..cluster.forbidden import ForbiddenAddresses
from ..cluster.from_names import EndpointsByName
from ..log_fields import FieldLogger
from ..log_limit import SERVICE_LINES, LogLimit
from ..model import IPFamily, ServiceKey
from ..model.endpoint_names import (
    Lookup,
    NameProblem,
    NameState,
)
from .node_resolver import NodeResolver

_log = FieldLogger("userspace_proxy.agent")

LookUp = Callable[[str, Sequence[IPFamily]], Awaitable[Lookup]]
"""Looks up the addresses of a name; a failure is part of the result."""
Wait = Callable[[asyncio.Event, float], Awaitable[object]]
"""Returns when the event is set, or after this number of seconds."""
Turn = Callable[[], Awaitable[object]]
"""Yields to other tasks, unless they ran a moment ago."""


class EndpointLookups:
    """Looks up host names that are endpoints of one proxy's Services, and derives snapshots.

    Args:
        allowed, forbidden: See :class:`.EndpointsByName`.
        publish: Called with each derived snapshot.
        turn: Called between two Services.
        look_up: Looks up a name; None to query the DNS servers of this node.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        forbidden: ForbiddenAddresses,
        publish: Callable[[Snapshot], Awaitable[None]],
        *,
        turn: Turn,
        wait: Wait,
        look_up: LookUp | None = None,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self._endpoints = EndpointsByName(allowed, forbidden)
        self._publish = publish
        self._look_up = look_up or NodeResolver().look_up
        self._turn = turn
        self._wait = wait
        self._clock = clock
        self._newest: Snapshot | None = None
        self._has_changed = asyncio.Event()
        self._is_deriving = False
        self._wake = asyncio.Event()
        self._log_limit = LogLimit(SERVICE_LINES)
        self._bugs: dict[ServiceKey, str] = {}
        """The bugs of the last derivation; only new bugs are logged."""

    @property
    def is_behind(self) -> bool:
        """Whether a new snapshot or lookup isn't part of a derived snapshot yet."""
        return self._is_deriving or self._has_changed.is_set()

    def take(self, snapshot: Snapshot) -> None:
        """Store the source's newest snapshot; :meth:`follow` publishes it with addresses."""
        self._newest = snapshot
        self._has_changed.set()

    def look_again(self) -> None:
        """Check all addresses again after this node's addresses have changed."""
        self._endpoints.look_again()
        self._has_changed.set()

    async def follow(self) -> None:
        """Publish a snapshot after each new snapshot or lookup, until cancelled."""
        while True:
            await self._has_changed.wait()
            await self.derive()

    async def derive(self) -> None:
        """Publish the newest snapshot, if any, with addresses; never during :meth:`follow`."""
        self._has_changed.clear()
        if self._newest is None:
            return
        self._is_deriving = True
        try:
            for _ in self._endpoints.turns(self._newest):
                await self._turn()
        finally:
            self._is_deriving = False
        self._log_bugs()
        await self._publish(self._endpoints.last)
        self._wake_workers()

    async def work(self) -> None:
        """Look up names one by one, each when it is due, until cancelled."""
        hosts = self._endpoints.hosts
        while True:
            wake = self._wake
            due = hosts.take(self._clock())
            if due is not None:
                await self._learn(*due)
            elif (at := hosts.next_at()) is None:
                await wake.wait()
            else:
                await self._wait(wake, max(0.0, at - self._clock()))

    async def _learn(self, host: str, families: Sequence[IPFamily]) -> None:
        before = self._endpoints.hosts.problem(host)
        lookup, has_changed = Lookup({}, why="the lookup failed"), False
        try:
            lookup = await self._look_up(host, families)
        finally:
            now = self._clock()
            has_changed = self._endpoints.learn(host, lookup, now)
            if self._endpoints.hosts.has_ready:
                self._wake_workers()
        if has_changed:
            self._has_changed.set()
            self._log_change(host, before, self._endpoints.hosts.problem(host), now)

    def _wake_workers(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    def _log_bugs(self) -> None:
        before, self._bugs = self._bugs, dict(self._endpoints.bugs)
        for key, bug in self._bugs.items():
            if bug != before.get(key) and self._log_limit.take(self._clock()):
                text = "bug: %(service)s: cannot find endpoints by name: %(cause)s"
                _log.error(text, extra={"service": str(key), "cause": bug})

    def _log_change(
        self, host: str, before: NameProblem | None, after: NameProblem | None, now: float
    ) -> None:
        if after == before or not self._log_limit.take(now):
            return
        if after is None:
            if before is not None and before.state is not NameState.PENDING:
                _log.info("%(host)s: endpoint host name resolves now", extra={"host": host})
            return
        text = "%(host)s: endpoint host name has no usable address: %(cause)s"
        if after.state is NameState.STALE:
            text = "%(host)s: cannot resolve endpoint host name, keeping its addresses: %(cause)s"
        _log.warning(text, extra={"host": host, "cause": after.detail})
