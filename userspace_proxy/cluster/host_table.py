"""Decides when names are looked up, and stores their addresses.

    want ──▶ due ──take──▶ under way ──learn──┬─ addresses ──TTL, 5–300 s──▶ due
                                              └─ none ──5 s, doubling to 60 s──▶ due

Rule 1: a name that no longer resolves keeps its last addresses for an hour, whatever DNS answers,
so that neither an outage of DNS nor a broken zone takes down a Service.
Rule 2: an address family for which no server has answered keeps its addresses while the other
family has addresses; otherwise the answer is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..model import IPFamily
from ..model.endpoint_names import Lookup, NameProblem, NameState
from ..pacing import backoff_s
from .host_queue import HostQueue

TTL_MIN_S = 5.0
"""The minimum interval between two lookups of a name, whatever its TTL: Envoy's default."""
TTL_MAX_S = 300.0
"""The maximum interval between two lookups of a name: some zones have a TTL of a day, but a
database may move within minutes."""
RETRY_S, RETRY_MAX_S = 5.0, 60.0
"""The first and the longest wait after failures; RFC 8767 recommends at least 30 s."""
KEEP_S = 3600.0
"""How long old addresses are kept. RFC 8767 allows days, but after days an address may belong to
another customer of the cloud."""


@dataclass(slots=True)
class _Host:
    families: tuple[IPFamily, ...] = ()
    namespaces: tuple[str, ...] = ()
    """The namespaces whose Services use the name."""
    asked: tuple[IPFamily, ...] = ()
    """The address families of the last lookup."""
    addresses: dict[IPFamily, tuple[str, ...]] = field(default_factory=dict)
    due_at: float | None = 0.0
    """When the next lookup is due, in monotonic seconds; None if one is in progress."""
    is_known: bool = False
    """Whether a lookup has been completed."""
    failures: int = 0
    """The number of consecutive lookups without an address."""
    why: str = ""
    """Why the last lookup failed; empty if it didn't."""
    since: float = 0.0
    """When the first of these consecutive failures occurred, in monotonic seconds."""
    keep_until: float = 0.0
    """Monotonic seconds until which the name keeps its last addresses."""


class HostTable:
    """The host names that one proxy resolves; the caller passes the time, and does the lookups."""

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._queue = HostQueue()

    def __contains__(self, host: str) -> bool:
        return host in self._hosts

    def want(self, host: str, families: Iterable[IPFamily], namespaces: Iterable[str]) -> None:
        """Schedule lookups of a name from now on, for families and namespaces. Idempotent."""
        known = self._hosts.setdefault(host, _Host())
        wanted, users = tuple(sorted(families)), tuple(sorted(namespaces))
        has_more = bool(set(wanted) - set(known.families))
        has_other, known.namespaces = users != known.namespaces, users
        known.families = wanted
        if wanted and known.due_at is not None and (has_more or has_other):
            self._set_due(host, known, 0.0 if has_more else known.due_at)

    def seed(self, host: str, family: IPFamily, addresses: Sequence[str]) -> None:
        """Set a wanted name's addresses from an earlier run, unless it has been looked up."""
        known = self._hosts[host]
        if not known.is_known and addresses:
            known.addresses.setdefault(family, tuple(addresses))

    def forget(self, host: str) -> None:
        """Stop looking up a name. Idempotent."""
        self._hosts.pop(host, None)
        self._queue.remove(host)

    def take(self, now: float) -> tuple[str, tuple[IPFamily, ...]] | None:
        """Return a due name and its families, or None; it occupies a slot until :meth:`learn`."""
        host = self._queue.take(now)
        if host is None:
            return None
        known = self._hosts[host]
        known.due_at, known.asked = None, known.families
        return host, known.families

    def next_at(self) -> float | None:
        """Return the monotonic seconds when the next name is due; None if no name is waiting."""
        return self._queue.next_at()

    @property
    def has_ready(self) -> bool:
        """Whether a name may be waiting for a slot that :meth:`learn` has freed."""
        return self._queue.has_ready

    def learn(self, host: str, lookup: Lookup, now: float) -> bool:
        """Record a lookup's result; return True for the first, or for new addresses or problems.

        Args:
            now: Monotonic seconds.
        """
        self._queue.give_back(host)
        known = self._hosts.get(host)
        if known is None:
            return False
        before = dict(known.addresses), self.problem(host), known.is_known
        known.is_known = True
        if lookup.why:
            self._note_failure(known, lookup.why, now)
            wait_s = backoff_s(known.failures, RETRY_S, RETRY_MAX_S)
            if any(known.addresses.values()):
                # Look the name up again at the latest when its last addresses expire.
                wait_s = min(wait_s, max(known.keep_until - now, 0.0))
        else:
            known.failures, known.why, known.since = 0, "", 0.0
            known.addresses.update(lookup.addresses)
            for family in known.addresses.keys() - set(known.families):
                del known.addresses[family]
            wait_s = min(max(lookup.ttl_s, TTL_MIN_S), TTL_MAX_S)
        if set(known.families) - set(known.asked):
            wait_s = 0.0
        self._set_due(host, known, now + wait_s)
        return before != (known.addresses, self.problem(host), True)

    def addresses(self, host: str, family: IPFamily) -> tuple[str, ...]:
        """Return the addresses of a name, sorted; empty if none is known."""
        known = self._hosts.get(host)
        return () if known is None else known.addresses.get(family, ())

    def problem(self, host: str) -> NameProblem | None:
        """Return why a name has no addresses, or only old addresses; None otherwise."""
        known = self._hosts.get(host)
        has_addresses = known is not None and any(known.addresses.values())
        if known is None or not (known.is_known or has_addresses):
            return NameProblem(host, NameState.PENDING)
        if not known.why:
            return None
        state = NameState.STALE if has_addresses else NameState.UNRESOLVED
        return NameProblem(host, state, known.why, known.since)

    def _note_failure(self, known: _Host, why: str, now: float) -> None:
        if not known.why:
            known.since, known.keep_until = now, now + KEEP_S
        known.why = why
        known.failures += 1
        if now >= known.keep_until:
            known.addresses.clear()

    def _set_due(self, host: str, known: _Host, at: float) -> None:
        known.due_at = at
        is_doubtful = bool(known.why) or not known.is_known
        self._queue.put(host, at, known.namespaces, is_doubtful=is_doubtful)
