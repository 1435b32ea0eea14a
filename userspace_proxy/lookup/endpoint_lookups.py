"""Looks up the names that Services have as endpoints, each when it is due.

    derive   Services of the source, with what is known of their names; wakes the workers
    work     take a name that is due ─▶ ask DNS ─▶ learn ─▶ publish

Rule 1: as many names are looked up at the same time as :meth:`EndpointLookups.work` runs.
Rule 2: what fails is a part of an answer; after a bug, too, the name is due again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from ..cluster import Snapshot
from ..cluster.forbidden import ForbiddenAddresses
from ..cluster.from_names import EndpointsByName
from ..log_fields import FieldLogger
from ..log_limit import SERVICE_LINES, LogLimit
from ..model import IPFamily
from ..model.endpoint_names import (
    INSTALL_DNSPYTHON,
    NO_DNSPYTHON,
    Lookup,
    NameProblem,
    NameState,
)

_log = FieldLogger("userspace_proxy.agent")

LookUp = Callable[[str, Sequence[IPFamily]], Awaitable[Lookup]]
"""Looks up the addresses of a name; whatever fails is a part of the result."""
Wait = Callable[[asyncio.Event, float], Awaitable[object]]
"""Returns when an event is set, or after that many seconds."""


class EndpointLookups:
    """The names that the Services of one proxy have as endpoints.

    Args:
        allowed: Names that may be looked up, with all names below them.
        forbidden: Addresses to which they must not lead.
        publish: Called with each snapshot that differs by lookups alone.
        look_up: None: by the DNS servers of this node.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        forbidden: ForbiddenAddresses,
        publish: Callable[[Snapshot], None],
        *,
        wait: Wait,
        look_up: LookUp | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = EndpointsByName(allowed, forbidden)
        self._publish = publish
        self._look_up = look_up
        self._wait = wait
        self._clock = clock
        self._wall_clock = wall_clock
        self._wake = asyncio.Event()
        self._log_limit = LogLimit(SERVICE_LINES)

    def derive(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot of the source with what is known of names; others are looked up."""
        derived = self._endpoints.derive(snapshot)
        self._wake.set()
        self._wake = asyncio.Event()
        return derived

    def look_again(self) -> None:
        """Judge all addresses again: those of this node have changed."""
        self._endpoints.look_again()
        self._publish(self._endpoints.again())

    async def work(self) -> None:
        """Look up one name after the other, each when it is due, until cancelled."""
        self._look_up = self._look_up or node_look_up()
        hosts = self._endpoints.hosts
        while True:
            wake = self._wake
            due = hosts.take(self._clock())
            if due is not None:
                await self._learn(self._look_up, *due)
            elif (at := hosts.next_at()) is None:
                await wake.wait()
            else:
                await self._wait(wake, max(0.0, at - self._clock()))

    async def _learn(self, look_up: LookUp, host: str, families: Sequence[IPFamily]) -> None:
        before = self._endpoints.hosts.problem(host)
        lookup, has_changed = Lookup({}, why="the lookup failed"), False
        try:
            lookup = await look_up(host, families)
        finally:
            now = self._clock()
            has_changed = self._endpoints.learn(host, lookup, now, self._wall_clock())
        if has_changed:
            self._publish(self._endpoints.again())
            self._log_change(host, before, self._endpoints.hosts.problem(host), now)

    def _log_change(
        self, host: str, before: NameProblem | None, after: NameProblem | None, now: float
    ) -> None:
        if after == before or not self._log_limit.take(now):
            return
        if after is None:
            if before is not None and before.state is not NameState.PENDING:
                _log.info("%(host)s: the name of endpoints resolves again", extra={"host": host})
            return
        text = "%(host)s: no address for the name of endpoints: %(cause)s"
        if after.state is NameState.STALE:
            text = "%(host)s: keeping the last addresses of the name of endpoints: %(cause)s"
        _log.warning(text, extra={"host": host, "cause": after.detail})


def node_look_up() -> LookUp:
    """Return lookups by the DNS servers of this node."""
    try:
        # It takes 0.1 s to import, and few proxies need it.
        from .node_resolver import NodeResolver
    except ModuleNotFoundError:
        cause = f"{NO_DNSPYTHON} ({INSTALL_DNSPYTHON})"
        _log.warning("no name of endpoints is looked up: %(cause)s", extra={"cause": cause})
        return _without_resolver
    return NodeResolver().look_up


async def _without_resolver(_host: str, _families: Sequence[IPFamily]) -> Lookup:
    """Look nothing up: Services by address are served anyway."""
    return Lookup({}, why=NO_DNSPYTHON)
