"""The position in the API server's history for one kind, and the next request for it.

    start ──list at "0"──▶ page … page ──▶ watch from there ──▶ events, bookmarks ──┐
             ▲    410 while paging: in one piece, newest        ▲                   │
             │                                                  └──disconnected─────┤
             └──list not older than the last state ◀──410───────────────────────────┘

Rule 1: history never goes back: after the first list nothing older is requested.
Rule 2: the newest state, which costs the server a quorum read, is requested only when it
reports that it doesn't know the last seen state (a list expired, or etcd was restored).

The first list is at resourceVersion 0 as client-go's is: any state that the server has in
memory, for a thousand nodes may start at once; the watch catches up within milliseconds.
From memory the server may send everything in one page, whatever the limit says.
"""

from __future__ import annotations

import enum

PAGE_LIMIT = 500
"""Objects a page, as client-go's pager."""


class _ListFrom(enum.Enum):
    ANYTHING = "any state"
    NOT_OLDER = "not older than what we saw"
    NEWEST = "the newest state"
    NEWEST_WHOLE = "the newest state in one piece"


class Position:
    """Stands at the beginning, in a list, or in a watch."""

    def __init__(self) -> None:
        self._from = _ListFrom.ANYTHING
        self._seen = ""
        """The resourceVersion that we saw last; opaque."""
        self._listed = ""
        """That of the list's first page."""
        self._continue = ""
        self.needs_list = True
        self.restarts = 0
        """How often a watch had to begin anew with a list."""

    def list_query(self) -> dict[str, str]:
        """Return what to ask for the next page of a list."""
        if self._continue:
            return {"limit": str(PAGE_LIMIT), "continue": self._continue}
        match self._from:
            case _ListFrom.ANYTHING:
                return {"limit": str(PAGE_LIMIT), "resourceVersion": "0"}
            case _ListFrom.NOT_OLDER:
                # Without the match a limit would mean exactly that state, and the watch from
                # it would expire again. Source: Kubernetes API concepts, resourceVersion.
                return {
                    "limit": str(PAGE_LIMIT),
                    "resourceVersion": self._seen,
                    "resourceVersionMatch": "NotOlderThan",
                }
            case _ListFrom.NEWEST:
                return {"limit": str(PAGE_LIMIT)}
            case _ListFrom.NEWEST_WHOLE:
                return {}

    def page_done(self, resource_version: str, continue_: str) -> bool:
        """Take what a page says of itself; return whether it was the last."""
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
        """Note that the server doesn't have that state any more (410).

        Returns:
            Whether there is another one to ask for at once.
        """
        before = self._from
        was_paging = bool(self._continue)
        self._continue = ""
        self._from = _ListFrom.NEWEST_WHOLE if was_paging else _ListFrom.NEWEST
        return was_paging or before not in (_ListFrom.NEWEST, _ListFrom.NEWEST_WHOLE)

    def list_broken_off(self) -> None:
        """Give up a list that failed: the next one begins with its first page."""
        self._continue = ""

    def watch_query(self, timeout_s: int) -> dict[str, str]:
        """Return what to ask for a watch from where we stand."""
        return {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._seen,
            "timeoutSeconds": str(timeout_s),
        }

    def advance(self, resource_version: str | None) -> None:
        """Take the resourceVersion of an event or a bookmark."""
        if resource_version:
            self._seen = resource_version

    def watch_expired(self) -> None:
        """Note that no watch can go on from where we stand: a list must follow."""
        self.needs_list = True
        self.restarts += 1
