"""Events: all that happened is counted at the server in the end, and requests are few."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from userspace_proxy.sources.base import Happening

from ..api_exchange import Exchange
from .share_checks import said

if TYPE_CHECKING:
    from .world import World

_EVERY_S = 60.0
_APART_S = 0.25
_FORBIDDEN_S = 600.0


@dataclass
class _Told:
    """What the source was told of one reason and object."""

    count: int = 0
    since_start: int = 0
    """Since the process began, which knows nothing of those before."""
    since_deleted: int = 0
    """Since the server has deleted its Event; a series may have ended by then."""
    is_rejected: bool = False
    """The server has refused one for good, so it isn't tried again until there is another one."""


class RecordingChecks:
    """The Events of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: dict[tuple[str, str], _Told] = defaultdict(_Told)
        self._asked: dict[str, float] = defaultdict(lambda: float("-inf"))
        self._last = float("-inf")
        self._forbidden_at: dict[str, float] = {}
        """By namespace, when the server said so."""
        self._series: dict[str, tuple[str, str]] = {}
        """Reason and object of each Event, by its name."""

    @property
    def is_used(self) -> bool:
        return bool(self._told)

    def note(self, happening: Happening) -> None:
        """Note what the source is told."""
        if not self._world.plan.with_node:
            return
        name = "alice" if happening.service is None else happening.service.name
        told = self._told[happening.reason, name]
        told.count += 1
        told.since_start += 1
        told.since_deleted += 1

    def forget(self) -> None:
        """Have the server delete all Events, as it does after an hour."""
        self._world.etcd.events.clear()
        for told in self._told.values():
            told.since_deleted = 0

    def note_restart(self) -> None:
        """What a process that died had to send is lost."""
        for told in self._told.values():
            told.since_start = 0
        self._asked.clear()
        self._forbidden_at.clear()
        self._last = float("-inf")

    def on_begin(self, exchange: Exchange) -> None:
        """Check when a request is made."""
        if "/events" not in exchange.path:
            return
        now, body = self._world.now, exchange.body or {}
        name = body.get("metadata", {}).get("name") or exchange.path.rpartition("/")[2]
        check = self._world.judgements.check
        gap = now - self._last
        check("Events apart", gap >= _APART_S * 0.99, lambda: f"{gap:.3f} s after another one")
        own = now - self._asked[name]
        check("Events of a series", own >= _EVERY_S * 0.99, lambda: f"{name}: after {own:.1f} s")
        self._last = self._asked[name] = now
        if body.get("reason"):
            self._series[name] = body["reason"], body["regarding"]["name"]

    def on_head(self, exchange: Exchange) -> None:
        """Note that an Event is refused."""
        if "/events" not in exchange.path:
            return
        _, _, rest = exchange.path.partition("/namespaces/")
        namespace, _, _ = rest.partition("/")
        if exchange.code in (401, 403):
            self._forbidden_at[namespace] = self._world.now
        elif 400 <= exchange.code < 500 and exchange.code not in (404, 409, 429):
            name = (exchange.body or {}).get("metadata", {}).get("name")
            self._told[self._series[name or exchange.path.rpartition("/")[2]]].is_rejected = True

    def check_end(self) -> None:
        """Check that all is counted."""
        judgements, now = self._world.judgements, self._world.now
        found: Counter[tuple[str, str]] = Counter()
        for (namespace, _), event in self._world.etcd.events.items():
            regarding = event["regarding"]
            expected = "default" if regarding["kind"] == "Node" else "shop"
            judgements.check(
                "place of an Event", namespace == expected, said(regarding, "in", namespace)
            )
            count = event.get("series", {}).get("count", 1)
            found[event["reason"], regarding["name"]] += count
        for key, told in self._told.items():
            forbidden_at = self._forbidden_at.get(_namespace_of(key[1]), float("-inf"))
            is_late = now - forbidden_at < _FORBIDDEN_S
            # What was told to a process that has died may have been sent before.
            is_lost = told.is_rejected or is_late
            least = 0 if is_lost else min(told.since_start, told.since_deleted)
            is_right = least <= found[key] <= told.count
            if is_right and found[key] != told.count and is_lost:
                reason = "they were rejected" if told.is_rejected else "they were forbidden"
                judgements.excuse("Events counted", reason)
            else:
                judgements.check(
                    "Events counted", is_right, said(key, found[key], "not", least, told.count)
                )


def _namespace_of(name: str) -> str:
    """Return where Events about an object are: about the Node, or about one of the Services."""
    return "default" if name == "alice" else "shop"
