"""Decides which names of a Service are looked up: all names, or an equal share per Service.

    names of each Service ──▶ shares.Shares ──▶ its first names are looked up

All names of a Service with few names are looked up, even if another Service of the namespace has
too many.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from ..model import ServiceKey
from ..model.endpoint_names import NAMES_MAX
from ..shares import Shares

NAMESPACE_MAX = 100
"""The maximum number of names that are looked up for a namespace, counted once per Service."""
NODE_MAX = 1000
"""The maximum number of names for all namespaces: 200 lookups a second at the shortest TTL."""


class NameClaim(NamedTuple):
    """A name that is looked up for a Service."""

    service: ServiceKey
    host: str


class NameShares:
    """The names looked up for each Service of one proxy."""

    def __init__(self) -> None:
        self.users: dict[str, set[ServiceKey]] = {}
        """The Services for which each name is looked up; no entry is empty."""
        self._asked: dict[ServiceKey, tuple[str, ...]] = {}
        """The names that each Service requests, up to the limit per Service; no entry is empty."""
        self._granted: dict[ServiceKey, tuple[str, ...]] = {}
        """The requested names that are looked up; no entry is empty."""
        self._shares = Shares[ServiceKey](
            of_namespace=NAMESPACE_MAX, of_node=NODE_MAX, are_divisible=True
        )

    def of(self, key: ServiceKey) -> tuple[str, ...]:
        """Return the names that are looked up for a Service."""
        return self._granted.get(key, ())

    def turns(
        self, asked: Mapping[ServiceKey, Sequence[str]]
    ) -> Generator[None, None, set[NameClaim]]:
        """Replace the names that some Services request; yield after each affected Service.

        Returns the claims whose names are newly looked up, or no longer looked up.
        """
        wanted = {key: tuple(dict.fromkeys(hosts))[:NAMES_MAX] for key, hosts in asked.items()}
        self._asked |= wanted
        others = self._shares.change({key: len(hosts) for key, hosts in wanted.items()})
        moved: set[NameClaim] = set()
        for key in wanted.keys() | others:
            self._grant(key, moved)
            yield
        return moved

    def _grant(self, key: ServiceKey, moved: set[NameClaim]) -> None:
        before = self._granted.pop(key, ())
        now = self._asked[key][: self._shares.granted(key)]
        if now:
            self._granted[key] = now
        if not self._asked[key]:
            del self._asked[key]
        for host in set(before).symmetric_difference(now):
            moved.add(NameClaim(key, host))
            users = self.users.setdefault(host, set())
            users ^= {key}
            if not users:
                del self.users[host]
