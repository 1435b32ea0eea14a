"""The API server of a run, what fails at it, and the source that reads it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from userspace_proxy.sources import Source
from userspace_proxy.sources.kubernetes.reflector import Timing
from userspace_proxy.sources.kubernetes.source import KubernetesSource

from ..timeline import Timeline
from .api import ApiServer
from .api_client import URL, Address, SimulatedClient
from .api_etcd import Etcd
from .api_faults import Cut
from .api_problems import ApiProblems
from .plan import NODE, Object

if TYPE_CHECKING:
    from .machine import AgentProcess

# Waits before retries are shorter than the product's, so that changes have a short bound.
_TIMING = Timing(backoff_base_s=0.1, backoff_cap_s=0.4, silence_s=5.0, silence_over_s=2.0)
# For all that reads to notice a fault, and to read again.
_AGAIN_S = 3.0
_SILENCE_S = 12.0
_FORBIDDEN = 403


@dataclass(eq=False, slots=True)
class Failure:
    """From when to when requests of one sort fail without a break."""

    since: float = float("-inf")
    until: float = float("-inf")

    def add(self, since: float, until: float) -> None:
        """Have them fail from one time to another, too."""
        if since >= self.until:
            self.since = since
        self.until = max(self.until, until)

    def hide(self, now: float, until: float) -> None:
        """Have no request of now be answered before a time, so that no new failure is noticed."""
        if now - self.since < _AGAIN_S:
            self.since = max(self.since, until)


class Api:
    """One API server, and the clients of agents.

    Args:
        objects: Those that have been there for long.
    """

    def __init__(self, timeline: Timeline, rng: Random, objects: Iterable[Object]) -> None:
        self._timeline = timeline
        self._rng = rng
        self.etcd = Etcd()
        for item in objects:
            self.changed(item, False)
        self.server = ApiServer(self.etcd, timeline, rng, lag_s=0.02)
        self.server.bookmark_s = 1.0
        self.address = Address([self.server], rng)
        self._clients: dict[AgentProcess, SimulatedClient] = {}
        self._problems: dict[AgentProcess, ApiProblems] = {}
        self.each = Failure()
        """Of each request."""
        self._node = Failure()
        """Of those for the Node, but for refusals of one that is forbidden: an agent that may not
        read its Node does without.
        """
        self.forbidden_until = float("-inf")
        """Until then an agent may do without its Node, which it may not read."""

    def changed(self, item: Object, is_deleted: bool) -> None:
        """Follow a change of the cluster."""
        if is_deleted:
            metadata = item["metadata"]
            self.etcd.delete(item["kind"], metadata["name"], metadata.get("namespace", ""))
        else:
            self.etcd.put(dict(item))

    def client_for(self, process: AgentProcess) -> SimulatedClient:
        """Return the client of a process that starts."""
        client = self._clients[process] = self.address.client_for(process.loop, NODE)
        self._problems[process] = ApiProblems(client)
        return client

    def problems_of(self, process: AgentProcess) -> ApiProblems:
        """Return what the client of a process has received."""
        return self._problems[process]

    def source(self) -> Source:
        """Return the source of an agent that starts."""
        return KubernetesSource(
            master=URL,
            node_name=NODE,
            timing=_TIMING,
            clock=self._timeline.clock,
            rng=self._rng,
        )

    def died(self, process: AgentProcess) -> None:
        """Close the connections of a process that has died."""
        client = self._clients.pop(process, None)
        if client is not None:
            client.abort()

    def fail(self, how: str, *args: Any) -> float:
        """Have something fail; return for how long changes may be late."""
        server = self.server
        if how == "cut":
            server.cut()
        elif how == "end watches":
            server.end_watches()
        elif how == "forget history":
            self.etcd.forget_history()
            server.end_watches()
        elif how == "silent":
            server.go_silent(args[0])
            for each in (self.each, self._node):
                each.hide(self._timeline.now, server.silent_until)
            return float(args[0]) + _SILENCE_S
        elif how == "refuse":
            resource = args[2] if len(args) > 2 else ""
            server.refuse(args[0], args[1], resource=resource)
            server.end_watches()
            self._fails_until(args[1], code=args[0], for_node=bool(resource))
            if args[0] == _FORBIDDEN:
                self.forbidden_until = self._timeline.now + float(args[1]) + _AGAIN_S
            return float(args[1]) + _AGAIN_S
        elif how == "cut next":
            server.cut_next(Cut(after_bytes=args[0]))
            server.end_watches()
        elif how == "restart":
            server.stop()
            self._timeline.after(args[0], self._start)
            self._fails_until(args[0])
            return float(args[0]) + _AGAIN_S
        elif how == "pages":
            server.page_max, server.has_watch_cache = args[0], False
        elif how == "slow":
            server.slow_s = args[0]
        else:
            server.piece_max = args[0]
        return _AGAIN_S

    def _start(self) -> None:
        self.server.start()
        # Perhaps another restart was to last longer.
        self.each.until = self._node.until = self._timeline.now

    def _fails_until(self, seconds: float, *, code: int = 0, for_node: bool = False) -> None:
        """Note that requests fail, by a refusal with this code or without an answer."""
        now = self._timeline.now
        # A server that is silent doesn't even say that watches end.
        since = max(now, self.server.silent_until)
        if not for_node:
            self.each.add(since, now + seconds)
        if code != _FORBIDDEN:
            self._node.add(since, now + seconds)

    @property
    def failures(self) -> list[Failure]:
        """What fails now, and without which an agent isn't current."""
        now = self._timeline.now
        return [each for each in (self.each, self._node) if now < each.until]

    def fails_wholly_since(self, at: float) -> bool:
        """Return whether each request has failed since a time."""
        return self.each in self.failures and self.each.since <= at

    def be_well(self) -> None:
        """Have nothing fail any more."""
        self.server.slow_s, self.server.piece_max = 0.0, 0
        self.server.refusals.clear()
        if self.server.is_up:
            self.each.until = self._node.until = self._timeline.now
        self.server.cuts.clear()
