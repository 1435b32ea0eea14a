"""Mutants of what reads the API server: each is one fault, as such programs have had them."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

_SOURCES, _CLUSTER = "sources.kubernetes", "cluster"


def _source(module: str, old: str, new: str) -> Mutant:
    return Mutant(module, old, new, _SOURCES)


def _store(old: str, new: str) -> Mutant:
    return Mutant("store", old, new, _CLUSTER)


MUTANTS: Mapping[str, Mutant] = {
    "api-list-keeps-what-a-broken-list-named": _source(
        "resources",
        "        self._listed.clear()\n        self._not_listed.clear()",
        "        self._not_listed.clear()",
    ),
    "api-list-deletes-nothing": _source(
        "resources", "for key in self._shares.kept() - self._listed:", "for key in set[Key]():"
    ),
    "api-rejected-item-of-a-list-is-deleted": _source(
        "resources",
        "            if is_kept:\n                self._listed.add(key)",
        "            if is_kept and key not in self.rejected:\n"
        "                self._listed.add(key)",
    ),
    "api-rejected-stays-in-the-list-of-problems": _source(
        "resources",
        "        self._accept(key)\n        return key, True",
        "        return key, True",
    ),
    "api-deleted-rejected-object-stays-a-problem": _source(
        "resources",
        "        self._shares.drop(key)\n        self._accept(key)",
        "        self._shares.drop(key)",
    ),
    "api-watch-deletes-nothing": _source(
        "resources",
        "        if key in self._shares:\n            self._delete(key)",
        "        if key not in self._shares:\n            self._delete(key)",
    ),
    "api-too-much-stays": _source(
        "resources",
        "            self._delete(key)\n            return key, False",
        "            return key, False",
    ),
    "api-left-out-of-a-list-isnt-counted": _source(
        "resources", "        self._shares.set_left_out(self._not_listed)\n", ""
    ),
    "api-share-never-opens": _source(
        "shares", "            self._full.discard(key[0])\n", "            pass\n"
    ),
    "api-share-isnt-freed": _source(
        "shares",
        "        self._set(key, 0)\n",
        "        self._kept.holders.get(key[0], {}).pop(key[1], None)\n",
    ),
    "api-share-counts-twice": _source("shares", " - self._kept.of(*key) + weight", " + weight"),
    "api-share-of-all": _source("shares", "self._kept.of_group[key[0]] - ", "self._kept.total - "),
    "api-position-of-the-last-page": _source(
        "position",
        "        if not self._continue:\n            self._listed = resource_version\n",
        "        self._listed = resource_version if not self._continue else self._listed + '0'\n",
    ),
    "api-watch-from-the-list-again": _source(
        "position",
        "        last, self._seen = self._seen, resource_version\n",
        "        last = self._seen\n",
    ),
    "api-list-of-any-state-again": _source(
        "position", "        self._from = _ListFrom.NOT_OLDER\n", ""
    ),
    "api-expired-list-asks-the-same": _source(
        "position",
        "_ListFrom.NEWEST_WHOLE if was_paging else _ListFrom.NEWEST",
        "_ListFrom.NEWEST if was_paging else _ListFrom.NOT_OLDER",
    ),
    "api-aborted-list-goes-on": _source(
        "position",
        '        """Note that a list failed: the next one begins with its first page."""\n'
        '        self._continue = ""',
        '        """Note that a list failed: the next one begins with its first page."""',
    ),
    "api-history-goes-back-unseen": _source(
        "position",
        "        self._from = _ListFrom.NEWEST\n        return False",
        "        return True",
    ),
    "api-restore-isnt-asked-for": _source(
        "reflector",
        "            if not is_known:\n",
        "            if self is None:\n",
    ),
    "api-expired-watch-is-watched-again": _source(
        "reflector",
        "        if is_expired(code, status):\n            self._expire()\n            return None",
        "        if is_expired(code, status):\n            return None",
    ),
    "api-line-lost-at-a-cut-between-parts": _source(
        "client", "        self._keep(rest)\n        return lines", "        return lines"
    ),
    "api-first-part-of-a-line-stays": _source(
        "client",
        "            self._parts.clear()\n            self._waiting",
        "            self._waiting",
    ),
    "api-only-the-first-batch": _source(
        "lists",
        "                take(batch)\n                await pause(0)",
        "                take(batch)\n                break",
    ),
    "api-deletions-are-kept": _source(
        "reflector",
        "                self._cache.delete(event.object, metadata)",
        "                pass",
    ),
    "api-no-wait-between-retries": _source(
        "reflector",
        "                await self._pause(wait_s)",
        "                await self._pause(0)",
    ),
    "api-waits-dont-grow": _source("reflector", "self._failures += 1", "self._failures = 1"),
    "api-waits-grow-for-ever": _source("reflector", "base_s, cap_s, jitter", "base_s, 1e9, jitter"),
    "api-retry-after-is-cut-short": _source(
        "reflector",
        "            async with asyncio.timeout(None) as waiting:\n"
        "                self._waiting = None if at_least_s else waiting",
        "            async with asyncio.timeout(None) as waiting:\n"
        "                self._waiting = waiting",
    ),
    "api-healthy-watch-is-waited-for": _source(
        "reflector",
        "if failure is None and (was_healthy or self._lists_at_once):",
        "if failure is None and (not was_healthy or self._lists_at_once):",
    ),
    "api-silence-is-borne": _source(
        "reflector",
        "        if self._has_bookmarks:\n            return self._timing.silence_s\n",
        "",
    ),
    "api-problem-stays": _source(
        "reflector",
        '        had_problem, self.problem = bool(self.problem), ""\n',
        "        had_problem = bool(self.problem)\n",
    ),
    "api-problem-isnt-noted": _source(
        "reflector",
        "            if failure is not None:\n                self._note_problem(failure.text)\n",
        "",
    ),
    "api-published-before-all-is-listed": _source(
        "source",
        "        if not all(reflector.is_listed for reflector in required):\n            return\n",
        "",
    ),
    "api-published-is-always-current": _source(
        "source",
        "            *(r.problem_since for r in required if r.problem),\n",
        "",
    ),
    "api-second-change-of-a-turn-is-lost": _source(
        "source",
        "        self._is_scheduled = False\n        if self._publish",
        "        if self._publish",
    ),
    "api-resumed-objects-stay": _source("source", "        slices.resume(", "        list("),
    "api-moved-slice-stays-with-its-service": _store(
        "            self.delete_slice(item.key)\n        elif", "            pass\n        elif"
    ),
    "api-deleted-slice-stays-with-its-service": _store(
        "            self._touched[old.service][key] = None", "            pass"
    ),
    "api-changed-slice-touches-nothing": _store(
        "        self._touched[item.service][item.key] = item", "        pass"
    ),
    "api-orphans-stay": _store("if put or drop:", "if put:"),
    "api-node-change-isnt-published": _store(
        "is_other = others != (last.node, last.node_addresses) or", "is_other ="
    ),
    "api-events-are-counted-once": _source(
        "events", "            known.count += 1\n", "            known.count += 0\n"
    ),
    "api-failed-event-counts-as-sent": _source(
        "recorder", "        if response.code < 300:", "        if response.code < 600:"
    ),
    "api-events-without-a-pause": _source(
        "recorder",
        "                await self._pause(APART_S)",
        "                await self._pause(0)",
    ),
    "api-known-event-counts-as-sent": _source(
        "recorder", "series.sent = max(series.sent, 1)", "series.sent = count"
    ),
    "api-unwanted-addresses-stay": _source(
        "node_addresses",
        "                self._take(None)\n                await self._wanted",
        "                await self._wanted",
    ),
    "api-addresses-of-the-first-page": _source(
        "lists",
        "                if not page.continue_:\n                    return None",
        "                return None",
    ),
}
