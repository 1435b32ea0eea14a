"""Faults in states that are rare: expired pages, other addresses, full bounds, kept states.

Each is of a kind that was planted by others and that the seeds of then didn't find.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")
_store = partial(Mutant, "store", package="cluster")

_OF_PAGES: Mapping[str, Mutant] = {
    "api-expired-pages-count-as-listed": _source(
        "reflector",
        "                    self._cache.begin_list()\n                    if",
        "                    if",
    ),
    "api-expired-page-is-asked-for-again": _source(
        "position",
        '        was_paging = bool(self._continue)\n        self._continue = ""\n',
        "        was_paging = bool(self._continue)\n",
    ),
    "api-expired-pages-are-a-failure": _source(
        "position",
        "return was_paging or before not in (_ListFrom.NEWEST, _ListFrom.NEWEST_WHOLE)",
        "return not was_paging and before not in (_ListFrom.NEWEST, _ListFrom.NEWEST_WHOLE)",
    ),
    "api-pages-of-nodes-that-expire-are-all": _source(
        "lists",
        "                if isinstance(page, Response):\n                    return page",
        "                if isinstance(page, Response):\n"
        "                    return page if page.code != 410 else None",
    ),
    "api-token-of-nodes-is-of-the-first-page": _source(
        "lists",
        'asked["continue"] = page.continue_',
        'asked.setdefault("continue", page.continue_)',
    ),
}
_OF_ADDRESSES: Mapping[str, Mutant] = {
    "api-addresses-that-left-stay": _source(
        "node_addresses",
        "        addresses: set[str] = set()\n",
        '        addresses: set[str] = self.__dict__.setdefault("_all", set())\n',
    ),
    "api-nodes-are-listed-once": _source(
        "node_addresses",
        "                await self._pause(EVERY_S)",
        "                await self._pause(100 * EVERY_S)",
    ),
    "api-failed-list-of-nodes-waits-long": _source(
        "node_addresses",
        "                await self._pause(_RETRY_S)\n            else",
        "                await self._pause(EVERY_S)\n            else",
    ),
    "api-one-denial-forgets-addresses": _source("node_addresses", "_DENIALS = 2", "_DENIALS = 1"),
    "api-denials-are-added-up": _source(
        "node_addresses",
        "isinstance(exc, _Forbidden) else 0",
        "isinstance(exc, _Forbidden) else denials",
    ),
    "api-failed-list-of-nodes-forgets-addresses": _source(
        "node_addresses", "if denials >= _DENIALS:", "if denials <= _DENIALS:"
    ),
    "api-addresses-forgotten-at-a-start": _store(
        "        self._node_addresses = snapshot.node_addresses\n", ""
    ),
    "api-list-that-ends-early-is-whole": _source(
        "list_body",
        "        if not chunk and self._next is not _Next.NOTHING:",
        "        if not chunk and self._next is _Next.LIST:",
    ),
}
_OF_BOUNDS: Mapping[str, Mutant] = {
    "api-events-without-a-bound": _source(
        "events", "counts[namespace] >= NAMESPACE_MAX", "counts[namespace] > 10 * SERIES_MAX"
    ),
    "api-event-of-a-minute-gives-up-its-place": _source(
        "events", "now - one.asked_at >= EVERY_S", "now - one.asked_at >= 0"
    ),
    "api-no-event-gives-up-its-place": _source(
        "events", "now - one.asked_at >= EVERY_S", "now < one.asked_at"
    ),
    "api-the-newest-event-gives-up-its-place": _source(
        "events",
        "for key, one in self._series.items()",
        "for key, one in reversed(self._series.items())",
    ),
    "api-events-in-no-turn": _source(
        "events",
        "        order = self._turns.order(found, lambda item: _namespace_of(item[0]))",
        "        order = iter(found)",
    ),
    "api-all-rejected-are-listed": _source("source", "if more > 0:", "if more > 1000:"),
}
_OF_KEPT_STATES: Mapping[str, Mutant] = {
    "api-kept-services-stay": _source("source", "        services.resume(snapshot.services)\n", ""),
    "api-kept-states-are-other-objects": _store(
        "        self._states = self._states.changed(snapshot.services)\n", ""
    ),
    "api-kept-state-is-published-at-once": _source(
        "source",
        "if not all(reflector.is_listed for reflector in required):",
        "if not all(\n"
        "            follows.is_listed or cache.has_objects\n"
        "            for follows, cache in zip(required, self._caches)\n"
        "        ):",
    ),
    "api-deleted-node-stays": _source(
        "resources",
        "        delete=lambda store, _: store.set_node(None),",
        "        delete=lambda store, _: None,",
    ),
    "api-node-made-again-is-not-taken": _store(
        "        self._node = node\n",
        "        self._node = node if self._last.node or not self._last.revision else None\n",
    ),
    "api-node-that-a-list-lacks-stays": _source(
        "resources",
        "        for key in self._shares.kept() - self._listed:\n",
        "        for key in self._shares.kept() - self._listed - {k for k in"
        " self._shares.kept() if not k[0]}:\n",
    ),
    "api-history-is-trusted-after-a-wait": _source(
        "reflector",
        "            self._known_at = _UNKNOWN\n            await self._wait(",
        "            await self._wait(",
    ),
    "api-question-that-is-denied-is-an-answer": _source(
        "reflector",
        "        return None, response.code == 200\n",
        "        return None, True\n",
    ),
    "api-slow-watch-is-trusted": _source(
        "reflector", "= begun - known_at <= _RESTORE_S", "= known_at > _UNKNOWN"
    ),
}
MUTANTS: Mapping[str, Mutant] = {**_OF_PAGES, **_OF_ADDRESSES, **_OF_BOUNDS, **_OF_KEPT_STATES}
