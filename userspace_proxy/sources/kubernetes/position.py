"""Tracks the position in the API server's history of one kind, and chooses the next request.

    start ──list at "0"──▶ page … page ──▶ watch from there ──▶ events, bookmarks ──┐
             ▲    410 while paging: in one piece, newest        ▲                   │
             │                                                  └──disconnected─────┤
             └──list not older than the last state ◀──410───────────────────────────┘

Rule 1: history never goes back: after the first list, no older state is requested.
Rule 2: the newest state, which costs the server a quorum read, is requested only if the server
reports that it doesn't have the last seen state (a list expired, or etcd was restored), or sends an
older version. A restore may have ended a watch early, so the server is asked once the next watch is
open: an earlier answer could be from before the restore.

As in client-go, the first list is at resourceVersion 0: any state in the server's cache, because a
thousand nodes may start at once; the watch catches up within milliseconds. From its cache, the
server may send everything in one page, whatever the limit is.
"""

from __future__ import annotations

import enum
from typing import assert_never

PAGE_LIMIT = 500
"""Objects per page, as in client-go's pager."""


class _ListFrom(enum.Enum):
    ANYTHING = "any state"
    NOT_OLDER = "not older than the last seen state"
    NEWEST = "the newest state"
    NEWEST_WHOLE = "the newest state in one piece"


class Position:
    """The position of one reflector: at the start, in a list, or in a watch."""

    def __init__(self) -> None:
        self._from = _ListFrom.ANYTHING
        self._seen = ""
        """The last resourceVersion seen; opaque."""
        self._listed = ""
        """The resourceVersion of the list's first page."""
        self._continue = ""
        self.needs_list = True
        self.restarts = 0
        """The number of watches that had to be replaced by a new list."""

    def list_query(self) -> dict[str, str]:
        if self._continue:
            return {"limit": str(PAGE_LIMIT), "continue": self._continue}
        match self._from:
            case _ListFrom.ANYTHING:
                return {"limit": str(PAGE_LIMIT), "resourceVersion": "0"}
            case _ListFrom.NOT_OLDER:
                # Without resourceVersionMatch, a list with a limit would request exactly that
                # state, and the watch from there would expire again. Source: Kubernetes API
                # concepts, resourceVersion.
                return {
                    "limit": str(PAGE_LIMIT),
                    "resourceVersion": self._seen,
                    "resourceVersionMatch": "NotOlderThan",
                }
            case _ListFrom.NEWEST:
                return {"limit": str(PAGE_LIMIT)}
            case _ListFrom.NEWEST_WHOLE:
                return {}
            case _:
                assert_never(self._from)

    def page_done(self, resource_version: str, continue_: str) -> bool:
        """Record a page's metadata; return whether it was the last page."""
        if not self._continue:
            self._listed = resource_version
        self._continue = continue_
        if continue_:
            return False
        self._seen = self._listed
        self._from = _ListFrom.NOT_OLDER
        self.needs_list = False
        return True

    def list_expired(self) -> bool:
        """Record that the resourceVersion has expired (410); return whether to list now."""
        before = self._from
        was_paging = bool(self._continue)
        self._continue = ""
        self._from = _ListFrom.NEWEST_WHOLE if was_paging else _ListFrom.NEWEST
        return was_paging or before not in (_ListFrom.NEWEST, _ListFrom.NEWEST_WHOLE)

    def list_aborted(self) -> None:
        """Record that a list failed: the next list begins with the first page."""
        self._continue = ""

    def watch_query(self, timeout_s: int) -> dict[str, str]:
        return {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._seen,
            "timeoutSeconds": str(timeout_s),
        }

    def check_query(self) -> dict[str, str]:
        """Return the query for a list of at most one object, not older than the last seen state.

        The response shows whether the server has that state. A watch doesn't: from a state that the
        server hasn't reached yet, it is silent until then (kube-apiserver 1.36).
        """
        return {
            "fieldSelector": "metadata.name=kubernetes",
            "limit": "1",
            "resourceVersion": self._seen,
            "resourceVersionMatch": "NotOlderThan",
        }

    def advance(self, resource_version: str | None) -> bool:
        """Record the resourceVersion of an event or bookmark, if it has one.

        Returns: False if it is older than the last version, because etcd was restored: the caller
        must end the watch, and the next list requests the newest state.

        Source: KEP-5504, versions can be compared as numbers.
        """
        if not resource_version:
            return True
        last, self._seen = self._seen, resource_version
        if not _is_older(resource_version, last):
            return True
        self._from = _ListFrom.NEWEST
        return False

    def watch_expired(self) -> None:
        """Record that no watch can continue from here, so a list must follow; idempotent."""
        if not self.needs_list:
            self.needs_list = True
            self.restarts += 1


def _is_older(version: str, than: str) -> bool:
    are_numbers = all(text.isascii() and text.isdigit() for text in (version, than))
    return are_numbers and (len(version), version) < (len(than), than)
