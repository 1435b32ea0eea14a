"""Events: all that happened is counted at the server in the end, and requests are few.

Rule 1: of a namespace, 50 series are kept: of those of which nothing was sent within a minute, the
one that was quiet for longest gives up its place, and with none of them the new one isn't kept.
Rule 2: a namespace with many of them doesn't keep another one from its turn.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from userspace_proxy.model import ServiceKey
from userspace_proxy.sources.base import Happening

from ..api_exchange import Exchange
from ..api_requests import target_of
from .plan import NODE
from .reading import stamp_of
from .share_checks import said

if TYPE_CHECKING:
    from .world import World

_EVERY_S = 60.0
_APART_S = 0.25
_FORBIDDEN_S = 600.0
# After that, a turn that was passed, a patch of what the server has deleted, and another Event,
# each a minute apart.
_AGAIN_S = 200.0
_NAMESPACE_MAX = 50
_REJECTED = frozenset(range(400, 500)) - {401, 403, 409, 429}
_NEVER = float("-inf")
# Turns of an event loop, and what is between two requests.
_SOON_S = 1.0
# Between when the source makes a request and when the server sees that.
_NEAR_S = 0.01
_UNSURE = "another series may have had to give its place"
# Its own, and one of the other that had been chosen before.
_PASSED_MAX = 2


@dataclass
class _Told:
    """What the source was told of one reason and object."""

    count: int = 0
    since_start: int = 0
    """Since the process began, which knows nothing of those before."""
    since_deleted: int = 0
    """Since the server has deleted its Event; a series may have ended by then."""
    asked: int = 0
    """Of those since the start, what the last request was about."""
    asked_at: float = _NEVER
    """When the source has sent something last."""
    last: float = _NEVER
    """When it happened last."""
    note: str = ""
    """Of the last time."""
    has_failed: bool = False
    """The last request for it did, so it is tried again."""
    event: str = ""
    """The name of its Event, once the source was told that the server has that."""
    is_settled: bool = False
    """The server has taken what it was asked last, or refused it for good."""

    def lose(self) -> None:
        """Have the server refuse for good what it was asked last: that isn't tried again."""
        self.since_start = max(0, self.since_start - self.asked)
        self.since_deleted = min(self.since_deleted, self.since_start)

    def is_due(self, now: float) -> bool:
        """Return whether something of it is to be sent by now, for certain."""
        is_owed = self.has_failed or self.last > self.asked_at
        return is_owed and now - max(self.last, self.asked_at + _EVERY_S) > _SOON_S


class RecordingChecks:
    """The Events of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: dict[tuple[str, str], _Told] = defaultdict(_Told)
        self._kept: dict[str, dict[tuple[str, str], _Told]] = {"default": {}, "shop": {}}
        """What has a place, by the namespace of its Event; what happened last is last."""
        self._unsure: set[str] = set()
        """Namespaces of which another series may have had to give its place."""
        self._asked: dict[str, deque[float]] = defaultdict(deque)
        """When something was sent in the last minute, by namespace."""
        self._passed: Counter[str] = Counter()
        """How often another namespace had its turn while one has waited for its own."""
        self._last = _NEVER
        self._exchange: Exchange | None = None
        """The last request."""
        self._idle_since = _NEVER
        """Since when none is under way, at the latest."""
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
        key = happening.reason, name
        told = self._told[key]
        told.count += 1
        if self._keep(key, told):
            told.note = happening.note
            told.since_start += 1
            told.since_deleted += 1

    def _keep(self, key: tuple[str, str], told: _Told) -> bool:
        """Give a series a place; return whether it has one."""
        now, kept = self._world.now, self._kept[_namespace_of(key[1])]
        if key not in kept and len(kept) >= _NAMESPACE_MAX:
            quiet = [each for each, known in kept.items() if now - known.asked_at >= _EVERY_S]
            for each, known in kept.items():
                if quiet and each == quiet[0] and now - known.asked_at > _EVERY_S + _NEAR_S:
                    break
                if abs(now - known.asked_at - _EVERY_S) <= _NEAR_S:
                    # The source has asked a little before the server was.
                    self._unsure.add(_namespace_of(key[1]))
            if not quiet:
                return False
            kept.pop(quiet[0]).since_start = 0
        kept.pop(key, None)
        kept[key] = told
        told.last = now
        return True

    def forget(self) -> None:
        """Have the server delete all Events, as it does after an hour."""
        self._world.etcd.events.clear()
        for told in self._told.values():
            told.since_deleted = 0

    def note_restart(self) -> None:
        """What a process that died had to send is lost."""
        for told in self._told.values():
            told.since_start = told.asked = 0
            told.asked_at, told.is_settled, told.event = _NEVER, False, ""
        for kept in self._kept.values():
            kept.clear()
        self._unsure.clear()
        self._asked.clear()
        self._passed.clear()
        self._forbidden_at.clear()
        self._last = _NEVER
        self._exchange, self._idle_since = None, self._world.now

    def on_begin(self, exchange: Exchange) -> None:
        """Check when a request is made."""
        if "/events" not in exchange.path:
            return
        now, body = self._world.now, exchange.body or {}
        name = body.get("metadata", {}).get("name") or exchange.path.rpartition("/")[2]
        check = self._world.judgements.check
        gap = now - self._last
        check("Events apart", gap >= _APART_S * 0.99, lambda: f"{gap:.3f} s after another one")
        self._last = now
        if body.get("reason"):
            self._series[name] = body["reason"], body["regarding"]["name"]
            self._check_content(body)
        key = self._series[name]
        told, namespace = self._told[key], _namespace_of(key[1])
        if exchange.method == "PATCH":
            is_known = name == told.event
            check("Events known", is_known, said(key, "is patched, and may not exist:", name))
        own = now - told.asked_at
        check("Events of a series", own >= _EVERY_S * 0.99, lambda: f"{key}: after {own:.1f} s")
        is_owed = not told.is_settled or told.last >= told.asked_at or namespace in self._unsure
        check("Events owed", is_owed, said(key, "is sent again"))
        told.asked_at, told.asked, told.has_failed = now, told.since_start, False
        told.is_settled = False
        silent_s = now - self._forbidden_at.get(namespace, _NEVER)
        is_right = silent_s >= _FORBIDDEN_S * 0.99
        check("Events denied", is_right, said(silent_s, "s after one was denied in", namespace))
        self._exchange = exchange
        self._check_share(namespace)

    def _check_content(self, event: Mapping[str, Any]) -> None:
        """Judge what a new Event says, and of what."""
        regarding, reason = event["regarding"], event["reason"]
        right = {
            "note": self._told[reason, regarding["name"]].note,
            "action": "Try",
            "type": "Warning",
            "reportingController": "userspace-proxy",
            "reportingInstance": NODE,
        }
        found = {key: event.get(key) for key in right}
        check = self._world.judgements.check
        check("content of an Event", found == right, said(found, "not", right))
        uid, uids = regarding.get("uid", ""), self._uids_of(regarding)
        if uids:
            check("object of an Event", uid in uids, said(regarding, "has", uids))

    def _uids_of(self, regarding: Mapping[str, Any]) -> set[str]:
        """Return what may be taken for an object's uid; empty: that isn't known."""
        if regarding["kind"] == "Node":
            return {NODE}
        snapshot = self._world.published
        name = regarding["name"]
        state = snapshot and snapshot.services.get(ServiceKey(regarding["namespace"], name))
        if not state:
            return set()
        # Of the object that is shown, or of one that was written since.
        number = stamp_of(state.service)
        return {
            item["metadata"].get("uid", "")
            for stamp, item in self._world.checks.items.items()
            if stamp >= number and item["kind"] == "Service" and item["metadata"]["name"] == name
        }

    def _check_share(self, namespace: str) -> None:
        """Judge how many requests a namespace causes, and whose turn it is."""
        now, asked, check = self._world.now, self._asked[namespace], self._world.judgements.check
        asked.append(now)
        while asked[0] < now - _EVERY_S * 0.99:
            asked.popleft()
        few = len(asked) <= _NAMESPACE_MAX
        check("Events of a namespace", few, said(len(asked), "within a minute in", namespace))
        for other, kept in self._kept.items():
            # One that had its turn in that time waits for a minute longer.
            silent_s = now - self._forbidden_at.get(other, _NEVER)
            is_unsure = silent_s < _FORBIDDEN_S + _EVERY_S or other in self._unsure
            waits = any(each.asked_at == _NEVER for each in kept.values()) and not is_unsure
            self._passed[other] = self._passed[other] + 1 if waits and other != namespace else 0
            passed = self._passed[other]
            check("Events in turns", passed <= _PASSED_MAX, said(other, "was passed", passed))

    def on_end(self, exchange: Exchange) -> None:
        """Note that a response is complete, or broke off."""
        if exchange is self._exchange:
            self._be_idle(exchange)

    def _be_idle(self, exchange: Exchange) -> None:
        name = (exchange.body or {}).get("metadata", {}).get("name")
        told = self._told[self._series[name or exchange.path.rpartition("/")[2]]]
        is_whole = exchange.is_ended and not exchange.error
        if is_whole and exchange.code in (401, 403):
            self._forbidden_at[target_of(exchange.path).namespace] = self._world.now
        # The server has deleted what it doesn't find, so there will be another one.
        is_gone = exchange.code == 404 and exchange.method == "PATCH"
        if is_whole and exchange.method == "POST" and (exchange.code < 300 or exchange.code == 409):
            told.event = str(name)
        elif is_whole and is_gone:
            told.event = ""
        is_rejected = is_whole and exchange.code in _REJECTED and not is_gone
        told.is_settled = is_rejected or (is_whole and exchange.code < 300)
        if is_rejected:
            told.lose()
        told.has_failed = not is_whole or exchange.code >= 500 or exchange.code == 429
        self._exchange, self._idle_since = None, self._world.now

    def look(self) -> None:
        """Judge that nothing is left to be sent while nothing is in the way."""
        now, exchange = self._world.now, self._exchange
        if exchange is not None and exchange.is_closed:
            # It was given up, some time ago.
            self._be_idle(exchange)
        if self._exchange is not None or now - self._idle_since < _SOON_S:
            return
        for namespace, kept in self._kept.items():
            if now - self._forbidden_at.get(namespace, _NEVER) < _FORBIDDEN_S + _EVERY_S:
                continue
            due = [key for key, told in kept.items() if told.is_due(now)]
            what = said(due, "are due, and nothing is sent since", self._idle_since)
            if due and namespace in self._unsure:
                self._world.judgements.excuse("Events soon", _UNSURE)
            else:
                self._world.judgements.check("Events soon", not due, what)

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
            is_late = now - forbidden_at < _FORBIDDEN_S + _AGAIN_S
            # What was told to a process that has died may have been sent before.
            is_unsure = is_late or _namespace_of(key[1]) in self._unsure
            least = 0 if is_unsure else min(told.since_start, told.since_deleted)
            is_right = least <= found[key] <= told.count
            if is_right and found[key] != told.count and is_unsure:
                judgements.excuse("Events counted", "they were forbidden" if is_late else _UNSURE)
            else:
                judgements.check(
                    "Events counted", is_right, said(key, found[key], "not", least, told.count)
                )


def _namespace_of(name: str) -> str:
    """Return where Events about an object are: about the Node, or about one of the Services."""
    return "default" if name == "alice" else "shop"
