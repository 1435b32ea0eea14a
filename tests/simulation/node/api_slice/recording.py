"""Events: all that happened is counted at the server in the end, and requests are few."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from userspace_proxy.sources.base import Happening

from ..api_exchange import Exchange
from .share_checks import said

if TYPE_CHECKING:
    from .world import World

_EVERY_S = 60.0
_APART_S = 0.25
_FORBIDDEN_S = 600.0


class RecordingChecks:
    """The Events of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wanted: Counter[tuple[str, str]] = Counter()
        self._at_least: Counter[tuple[str, str]] = Counter()
        self._asked: dict[str, float] = defaultdict(lambda: float("-inf"))
        self._last = float("-inf")
        self._was_forbidden = float("-inf")
        self._has_restarted = self._is_given_up = False

    @property
    def is_used(self) -> bool:
        return bool(self._wanted)

    def note(self, happening: Happening) -> None:
        """Note what the source is told."""
        if not self._world.plan.with_node:
            return
        name = "alice" if happening.service is None else happening.service.name
        self._wanted[happening.reason, name] += 1

    def note_refused(self, code: int) -> None:
        """Note that they are refused for a while."""
        if code in (401, 403):
            self._was_forbidden = self._world.now
        # Where there is no such path, they are given up.
        self._is_given_up = self._is_given_up or code == 404

    def note_restart(self) -> None:
        """What a process that died had to send is lost."""
        self._has_restarted = True
        self._asked.clear()
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

    def check_end(self) -> None:
        """Check that all is counted."""
        judgements = self._world.judgements
        found: Counter[tuple[str, str]] = Counter()
        for (namespace, _), event in self._world.etcd.events.items():
            regarding = event["regarding"]
            expected = "default" if regarding["kind"] == "Node" else "shop"
            judgements.check(
                "place of an Event", namespace == expected, said(regarding, "in", namespace)
            )
            count = event.get("series", {}).get("count", 1)
            found[event["reason"], regarding["name"]] += count
        for key, wanted in self._wanted.items():
            if found[key] != wanted and self._has_restarted and found[key] < wanted:
                judgements.excuse("Events counted", "the process died")
            elif found[key] != wanted and self._is_given_up:
                judgements.excuse("Events counted", "they were rejected")
            elif found[key] != wanted and self._world.now - self._was_forbidden < _FORBIDDEN_S:
                judgements.excuse("Events counted", "they were forbidden")
            else:
                judgements.check(
                    "Events counted",
                    found[key] == wanted,
                    said(key, found[key], "not", wanted),
                )
