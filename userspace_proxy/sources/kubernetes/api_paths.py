"""Builds URL paths of the API, in which each name is one segment, whatever characters it has.

Rule 1: users choose the names in objects, so each name is quoted in a path.
Rule 2: a path with ``..``, a query or a fragment isn't sent, even if a name wasn't quoted.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from ...model.quoting import quoted
from .responses import TransportError

# Source: RFC 3986, pchar.
_IS_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_UNSOUND = frozenset({"", ".", ".."})


def join(start: str, *segments: str) -> str:
    """Return a path to which these segments are appended, each quoted."""
    return "/".join((start, *(quote(segment, safe="") for segment in segments)))


def check(path: str) -> None:
    """Check that a path is sent unchanged, and that all servers on the way agree on its meaning.

    Raises:
        TransportError: The path mustn't be sent.

    Source: client-go's IsValidPathSegmentName, and RFC 3986, 5.2.4.
    """
    segments = path[1:].split("/")
    if not _IS_PATH.fullmatch(path) or any(unquote(each) in _UNSOUND for each in segments):
        raise TransportError(f"{quoted(path)} is not the path of an object, nothing was sent")
