"""Answers that the API doesn't allow, as of a proxy on the way, or that name a failure of a server.

Rule 1: a line that can't be read ends its watch, and a list follows; an ERROR other than that the
watch expired ends it, too, and another watch follows.
Rule 2: a list that can't be read is asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_LONG_MAX = 1 << 16
_READ = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")

LINES: Mapping[str, bytes] = {
    "error": json.dumps(
        {
            "type": "ERROR",
            "object": {
                "kind": "Status",
                "code": 500,
                "reason": "InternalError",
                "message": "etcd event received with PrevKv=nil",
            },
        }
    ).encode(),
    "no-json": b"<html>Bad Gateway</html>",
    "half": b'{"type": "MODIFIED", "object": {"kind": "Serv',
    "unknown": b'{"type": "SYNC", "object": {"metadata": {"resourceVersion": "99999"}}}',
    "none": b"{}",
}
LISTS: Mapping[str, bytes] = {
    "page": b"<html>Sign in</html>",
    "array": b"[]",
    "no-items": b'{"kind": "List", "metadata": {"resourceVersion": "99999"}, "items": 7}',
    "no-version": b'{"kind": "List", "metadata": {}, "items": []}',
    "nothing": b"{}",
}


def line(which: str, line_bytes: int) -> bytes:
    """Return a line of a watch that isn't one of the API's.

    Args:
        line_bytes: What a line has at most; ``long`` has more, unless that would take too long.
    """
    if which != "long" or line_bytes > _LONG_MAX:
        return LINES.get(which, LINES["half"]) + b"\n"
    return b'{"type": "BOOKMARK", "object": "' + line_bytes * b"x" + b'"}\n'


def event_of(text: bytes, line_bytes: int) -> dict[str, Any]:
    """Return the event of a line; empty: it can't be read."""
    if len(text) > line_bytes:
        return {}
    try:
        event: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return event


def follows(event: Mapping[str, Any]) -> str:
    """Return what has to follow after one: ``watch`` or ``list``; empty: the watch goes on."""
    if event.get("type") == "ERROR":
        return "" if event["object"].get("code") == 410 else "watch"
    return "" if event.get("type") in _READ else "list"


def page_of(data: bytes) -> dict[str, Any] | None:
    """Return a page of a list; None: it is none."""
    try:
        page = json.loads(data)
    except ValueError:
        return None
    if not isinstance(page, dict) or not isinstance(page.get("items", []), list | None):
        return None
    has_version = bool(page.get("metadata", {}).get("resourceVersion"))
    return page if has_version else None
