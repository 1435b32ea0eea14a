"""Faults of lists, restarts and refusals that were planted to measure the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")

MUTANTS: Mapping[str, Mutant] = {
    "api-recovery-does-not-wake-the-node": _source(
        "source",
        "        for reflector in self._reflectors:\n            reflector.wake()",
        "        for reflector in self._reflectors[: self._required]:\n"
        "            reflector.wake()",
    ),
    "api-busy-server-answers-for-history": _source(
        "reflector",
        "elif response.code >= 500 or response.code == 429:",
        "elif response.code >= 500:",
    ),
    "api-expired-page-keeps-what-was-listed": _source(
        "reflector",
        "                    self._cache.begin_list()\n                    if self._position",
        "                    if self._position",
    ),
    "api-unreadable-object-is-left-out": _source(
        "resources",
        "is_kept = key in self._shares or self._shares.take(key, OBJECT_BYTES)",
        "is_kept = key in self._shares",
    ),
    "api-orphan-outlives-its-slices": Mutant(
        "store",
        "if key in self._orphans and key not in named}",
        "if key in self._orphans and key in self._services}",
        package="cluster",
    ),
    "api-restart-forgets-addresses-of-nodes": Mutant(
        "store",
        "        self._node_addresses = snapshot.node_addresses\n",
        "",
        package="cluster",
    ),
    "api-restart-keeps-deleted-slices": _source(
        "source",
        "        slices.resume(item.key for state in snapshot.services.values() for item in "
        "state.slices)\n",
        "",
    ),
    "api-age-is-that-of-the-latest-problem": _source(
        "source",
        "behind_s=self._clock() - min(failing)",
        "behind_s=self._clock() - max(failing)",
    ),
    "api-lines-of-a-watch-count-together": _source(
        "client",
        "            self._waiting_bytes = 0\n            if line",
        "            if line",
    ),
    "api-share-leaks-what-grew-too-large": _source(
        "shares",
        "self._set(key, weight if fits else 0)",
        "self._set(key, weight) if fits else self._weights.pop(key, 0)",
    ),
    "api-one-denial-ends-the-silence-of-others": _source(
        "recorder",
        "for path, until in self._silent_until.items() if until <= now]",
        "for path, until in self._silent_until.items() if until >= now]",
    ),
    "api-denials-of-nodes-add-up": _source(
        "node_addresses",
        "                self._take(await self._list())\n                denials = 0\n",
        "                self._take(await self._list())\n",
    ),
    "api-wake-ignores-the-wait-that-was-asked-for": _source(
        "reflector",
        "self._waiting = None if at_least_s else waiting",
        "self._waiting = waiting",
    ),
    "api-any-answer-proves-history": _source(
        "reflector",
        "return None, response.code == 200",
        "return None, True",
    ),
}
