"""The API server of a run, its faults, and the source with which an agent reads from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from userspace_proxy.sources import Source
from userspace_proxy.sources.kubernetes.reflector import Timing
from userspace_proxy.sources.kubernetes.source import KubernetesSource

from ..timeline import Timeline
from .api import ApiServer
from .api_client import URL, Address, SimulatedClient
from .api_etcd import Etcd
from .api_faults import LINES, LISTS, Cut
from .api_requests import target_of
from .claims import Key, key_of
from .plan import NODE, Object

if TYPE_CHECKING:
    from .machine import AgentProcess

# Delays before retries are shorter than the product's, so that changes are applied soon.
_TIMING = Timing(backoff_base_s=0.1, backoff_cap_s=0.4, silence_s=5.0, silence_over_s=2.0)
# The time within which all readers detect a fault and read again.
_AGAIN_S = 3.0
_SILENCE_S = 12.0
_FORBIDDEN = 403
# The time until a restored etcd is available; the time until queries are answered, which a server
# delays for up to three seconds; and the interval of polls.
_RESTORED_S, _WRITTEN_S, _POLL_S = 0.5, 4.0, 0.2
# The time for which the newest writes may be missing at a server that has just started.
_BEHIND_S = 1.0
_RESOURCES = "services", "endpointslices", "nodes"


class Api:
    """One API server, and the clients of agents.

    Args:
        objects: Objects that exist from the beginning.
        has: Returns the objects that should exist.
    """

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        objects: Iterable[Object],
        has: Callable[[], Mapping[Key, Object]],
    ) -> None:
        self._timeline = timeline
        self._rng = rng
        self._has = has
        self.etcd = Etcd()
        self._went_back = False
        """Whether history went back, and a reader hasn't detected it yet."""
        self._failed_at = self._started_at = 0.0
        """The times of the last fault, and of the server's last start."""
        self.disturbed: Callable[[], object] = lambda: None
        """Called while an older state may be applied."""
        self._written: dict[Key, Object] = {}
        """The last written state of each object, unless history has gone back since."""
        for item in objects:
            self._put(item)
        self.server = ApiServer(self.etcd, timeline, rng, lag_s=0.02)
        self.server.bookmark_s = 1.0
        self.address = Address([self.server], rng)
        self._clients: dict[AgentProcess, SimulatedClient] = {}
        self.forbidden_until = float("-inf")
        """The time until which an agent may lack its Node, which it isn't allowed to read."""

    def _put(self, item: Object) -> None:
        self._written[key_of(item)] = item
        self.etcd.put(dict(item))

    def changed(self, item: Object, is_deleted: bool) -> None:
        """Write a changed or deleted object; the next start writes it if the server is down."""
        if self._went_back or not self.server.is_up:
            return
        if not is_deleted:
            self._put(item)
            return
        kind, namespace, name = key_of(item)
        if (kind, namespace, name) in self._stored():
            self.etcd.delete(kind, name, namespace)

    def client_for(self, process: AgentProcess) -> SimulatedClient:
        """Return the client of a starting process."""
        client = self._clients[process] = self.address.client_for(process.loop, NODE)
        return client

    def source(self) -> Source:
        """Return the source of a starting agent."""
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
        """Cause a fault; return the seconds for which changes may be late."""
        server, self._failed_at = self.server, self._timeline.now
        if how == "silent":
            server.go_silent(args[0])
            return float(args[0]) + _SILENCE_S
        if how == "refuse":
            self._refuse(*args)
            return float(args[1]) + float(args[3] if len(args) > 3 else 0) + _AGAIN_S
        if how == "restart":
            seconds, behind = (*args, 0)[:2]
            server.stop()
            self._timeline.after(seconds, self._start, behind)
            return float(seconds) + _AGAIN_S + bool(behind)
        if how == "restore":
            self._restore(args[0])
            return _RESTORED_S + _WRITTEN_S + _AGAIN_S
        self._disturb(how, *args)
        return _AGAIN_S

    def _disturb(self, how: str, *args: Any) -> None:
        """Cause a short fault, or change a setting of the server permanently."""
        server = self.server
        if how == "cut":
            server.cut()
        elif how == "wrong line":
            server.send_to_watches(args[0], LINES[args[1] % len(LINES)] + b"\n")
        elif how == "pages":
            server.page_max, server.has_watch_cache = args[0], False
        elif how == "slow":
            server.slow_s = args[0]
        elif how == "pieces":
            server.piece_max = args[0]
        elif how == "habit":
            setattr(server, args[0], args[1])
        else:
            if how == "forget history":
                self.etcd.forget_history()
            elif how == "cut next":
                server.cut_next(Cut(*args))
            elif how == "wrong list":
                # Compaction forces the agent to list the objects again.
                self.etcd.touch()
                self.etcd.forget_history()
                server.answer_lists(args[0], LISTS[args[1] % len(LISTS)])
            server.end_watches()

    def _refuse(self, code: int, seconds: float, resource: str = "", retry_s: int = 0) -> None:
        """Refuse requests for a while, and end the watches."""
        server = self.server
        server.refuse(code, seconds, resource=resource, retry_after_s=retry_s)
        server.end_watches()
        if code == _FORBIDDEN:
            self.forbidden_until = self._timeline.now + seconds + _AGAIN_S

    def _start(self, behind: int = 0) -> None:
        if self.server.is_up:
            # Another fault's restart has started it already.
            return
        self._started_at = self._timeline.now
        self.server.start(behind=behind, behind_s=_BEHIND_S if behind else 0.0)
        if self._went_back:
            self._await_questions(self._timeline.now)
        else:
            self._write_again()

    def _restore(self, count: int) -> None:
        """Undo the last ``count`` writes, as restoring a backup does."""
        self.server.stop()
        self.disturbed()
        self.etcd.go_back(max(1, self.etcd.revision - count))
        self._went_back = True
        self._written.clear()
        self._timeline.after(_RESTORED_S, self._start)

    def _await_questions(self, since: float) -> None:
        """Write nothing until all readers were answered, then write all lost objects again.

        After earlier writes, readers couldn't detect that history went back.
        """
        self.disturbed()
        server, now = self.server, self._timeline.now
        if since < self._started_at:
            # The server has stopped since, so answers may have been lost.
            return
        asked = {target_of(path).resource: at for at, _, path, _ in server.requests if at >= since}
        failed = [self._failed_at, server.silent_until, *(each.until for each in server.refusals)]
        if server.cuts or not server.is_up:
            failed.append(now)
        is_asked = all(resource in asked for resource in _RESOURCES)
        if is_asked and now >= max(*failed, *asked.values()) + _WRITTEN_S:
            self._went_back = False
            self._write_again()
        else:
            self._timeline.after(_POLL_S, self._await_questions, since)

    def _write_again(self) -> None:
        wanted = {key: item for key, item in self._has().items() if key[0] != "Host"}
        stored = self._stored()
        for kind, namespace, name in stored.keys() - wanted.keys():
            self.etcd.delete(kind, name, namespace)
        for key in sorted(wanted):
            if key not in stored or self._written.get(key) is not wanted[key]:
                self._put(wanted[key])

    def _stored(self) -> dict[Key, Object]:
        items = (item for resource in _RESOURCES for item in self.etcd.items(resource))
        return {key_of(item): item for item in items}

    def stop_faults(self) -> None:
        """Stop all faults."""
        self.server.slow_s, self.server.piece_max = 0.0, 0
        self.server.refusals.clear()
        self.server.cuts.clear()
        self.server.wrong_lists.clear()
