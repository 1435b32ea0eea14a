"""Decides which names of Services are looked up: all, or equal shares of their namespaces.

    names of Services ──▶ room in the namespace, and on the node ──▶ looked up
                              └── the node has none: the newest name of the namespace with the
                                  most gives way, if that namespace has more by two at least

Rule 1: while the node has room, a namespace has as many names as its bound.
Rule 2: at the node's bound, no namespace loses a name to one with as many, and none lacks one while
another has two more. So a namespace with less than an equal share has all of its names.
Rule 3: names of one namespace are looked up in the order in which they were asked for, Service by
Service; what has no room follows when there is some.
Rule 4: no name costs a search of the namespaces: they are kept by their size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from ..model import ServiceKey
from ..model.endpoint_names import NAMES_MAX

NAMESPACE_MAX = 100
"""Names that the Services of one namespace have looked up, counted for each Service."""
NODE_MAX = 1000
"""The same for all Services: with the shortest TTL, 200 lookups a second."""


class NameClaim(NamedTuple):
    """A name that is looked up for a Service."""

    service: ServiceKey
    host: str


class NameShares:
    """The names that are looked up for each Service of one proxy."""

    def __init__(self) -> None:
        self.users: dict[str, set[ServiceKey]] = {}
        """The Services for which a name is looked up; none is empty."""
        self._asked: dict[ServiceKey, tuple[str, ...]] = {}
        """What each Service asks for, as far as a Service may; none is empty."""
        self._claims: dict[str, dict[NameClaim, None]] = {}
        """By namespace, oldest first; none is empty."""
        self._count = 0
        """The number of claims."""
        self._counts: dict[ServiceKey, int] = {}
        """Those of each Service; none is zero."""
        self._short: dict[str, dict[ServiceKey, None]] = {}
        """Services some names of which have no room, by namespace; none is empty."""
        self._sizes = _BySize()
        """The namespaces that have claims."""
        self._short_sizes = _BySize()
        """Those with Services some names of which have no room."""

    def of(self, key: ServiceKey) -> tuple[str, ...]:
        """Return the names that are looked up for a Service."""
        if key not in self._counts:
            return ()
        claims = self._claims[key.namespace]
        return tuple(host for host in self._asked.get(key, ()) if NameClaim(key, host) in claims)

    def turns(
        self, asked: Mapping[ServiceKey, Sequence[str]]
    ) -> Generator[None, None, set[NameClaim]]:
        """Replace the names that some Services ask for, each once, in turns.

        Returns what is looked up now and wasn't, or the reverse; also what only moved.
        """
        moved: set[NameClaim] = set()
        for key, hosts in asked.items():
            wanted = tuple(hosts[:NAMES_MAX])
            for host in self.of(key):
                if host not in wanted:
                    moved.add(self._release(NameClaim(key, host)))
            self._asked[key] = wanted
            if not wanted:
                del self._asked[key]
            self._note_short(key)
            yield
        while self._short:
            namespace, count = self._short_sizes.smallest()
            if count >= NAMESPACE_MAX:
                break
            if self._count >= NODE_MAX:
                largest, most = self._sizes.largest()
                if most <= count + 1:
                    break
                moved.add(self._release(next(reversed(self._claims[largest]))))
            moved.add(self._claim_next(namespace))
            yield
        return moved

    def _claim_next(self, namespace: str) -> NameClaim:
        key = next(iter(self._short[namespace]))
        host = next(host for host in self._asked[key] if key not in self.users.get(host, ()))
        claim = NameClaim(key, host)
        self._claims.setdefault(namespace, {})[claim] = None
        self._count += 1
        self._counts[key] = self._counts.get(key, 0) + 1
        self.users.setdefault(host, set()).add(key)
        self._note_short(key)
        return claim

    def _release(self, claim: NameClaim) -> NameClaim:
        """Have a name looked up no longer for a Service."""
        key, host = claim
        claims, users = self._claims[key.namespace], self.users[host]
        del claims[claim]
        self._count -= 1
        self._counts[key] -= 1
        if not self._counts[key]:
            del self._counts[key]
        if not claims:
            del self._claims[key.namespace]
        users.discard(key)
        if not users:
            del self.users[host]
        self._note_short(key)
        return claim

    def _note_short(self, key: ServiceKey) -> None:
        """Note whether a Service has names without room, and how many its namespace has."""
        namespace = key.namespace
        services = self._short.setdefault(namespace, {})
        if self._counts.get(key, 0) < len(self._asked.get(key, ())):
            services[key] = None
        else:
            services.pop(key, None)
        if not services:
            del self._short[namespace]
        size = len(self._claims.get(namespace, ()))
        self._sizes.put(namespace, size or None)
        self._short_sizes.put(namespace, size if services else None)


class _BySize:
    """Namespaces by the number of their names, of which there are a hundred at most."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        # The iterator of a dict would walk over all that were removed before.
        self._same: dict[int, OrderedDict[str, None]] = {}
        """Those of one size, in the order in which they got it; none is empty."""

    def put(self, namespace: str, size: int | None) -> None:
        """Set the size of a namespace; None: it is no longer here."""
        was = self._sizes.get(namespace)
        if size == was:
            return
        if was is not None:
            del self._sizes[namespace]
            del self._same[was][namespace]
            if not self._same[was]:
                del self._same[was]
        if size is not None:
            self._sizes[namespace] = size
            self._same.setdefault(size, OrderedDict())[namespace] = None

    def smallest(self) -> tuple[str, int]:
        """Return the namespace with the fewest names for the longest time, and their number."""
        size = min(self._same)
        return next(iter(self._same[size])), size

    def largest(self) -> tuple[str, int]:
        """Return the namespace that was the last to have the most names, and their number."""
        size = max(self._same)
        return next(reversed(self._same[size])), size
