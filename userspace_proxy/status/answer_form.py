"""Parses the options of ``/api/v1/status``: the requested part, the interval, the compression.

?view=summary&also=shop/web&watch&every=10

Rule 1: each part of a compressed stream is flushed, so that it can be read immediately.
Rule 2: gzip uses its fastest level, as for metrics: names and fields repeat, so higher levels gain
little.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from aiohttp import web
from multidict import MultiMapping
from prometheus_client.exposition import gzip_accepted

from ..facts import StatusFacts
from .sampling import PERIOD_S

SUMMARY_EVERY_S = 5.0
"""The interval of a summary's lines in seconds: workers report this often anyway."""
EVERY_MAX_S = 30.0
"""The longest interval in seconds, shorter than usual timeouts of idle connections."""
# The maximum number of values of ``also``: as many Services as a reader can display at once.
_ALSO_MAX = 100
_LEVEL = 1
# Selects the gzip format in zlib.
_WBITS = 31

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_GZIP_HEADERS = MappingProxyType({"Content-Encoding": "gzip"})

Write = Callable[[bytes], bytes]
"""Converts the next part of a stream to the bytes that are sent."""


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The requested form of an answer."""

    is_summary: bool = False
    """Whether Service ports and Services without problems are omitted."""
    also: frozenset[str] = frozenset()
    """Services, ``namespace/name``, that a summary contains even if they have no problem."""
    every_s: float | None = None
    """The minimum interval of a stream's lines in seconds; None for one line per sample."""
    is_gzip: bool = False

    @classmethod
    def read(cls, query: MultiMapping[str], headers: Mapping[str, str]) -> AnswerForm:
        """Parse a request.

        Raises:
            HTTPBadRequest: The view doesn't exist, or ``every`` isn't an allowed number of seconds.
        """
        view = query.get("view", "")
        if view not in ("", "summary"):
            raise web.HTTPBadRequest(reason="view is summary, or isn't given")
        default = SUMMARY_EVERY_S if view else None
        return cls(
            bool(view),
            frozenset(query.getall("also", ())[:_ALSO_MAX]) if view else frozenset(),
            _seconds(query["every"]) if "every" in query else default,
            accepts_gzip(headers),
        )

    def of(self, answer: StatusFacts) -> StatusFacts:
        """Return the requested part of an answer."""
        return answer.summarised(self.also) if self.is_summary else answer


def _seconds(text: str) -> float:
    is_short = text.isascii() and text.isdigit() and len(text) < 9
    if not (is_short and PERIOD_S <= int(text) <= EVERY_MAX_S):
        raise web.HTTPBadRequest(
            reason=f"every is a number of seconds from {PERIOD_S:.0f} to {EVERY_MAX_S:.0f}"
        )
    return float(text)


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether a client accepts gzip, by its request's headers."""
    return gzip_accepted(headers.get("Accept-Encoding", ""))


def headers_for(is_gzip: bool) -> Mapping[str, str]:
    """Return the headers that state the compression of an answer; empty if it has none."""
    return _GZIP_HEADERS if is_gzip else NO_HEADERS


def compressed(body: bytes, is_gzip: bool) -> bytes:
    """Return a complete answer, compressed if ``is_gzip``."""
    return gzip.compress(body, _LEVEL, mtime=0) if is_gzip else body


def flushed_parts(is_gzip: bool) -> Write:
    """Return a function that compresses and flushes each part of a stream, if ``is_gzip``."""
    if not is_gzip:
        return bytes
    compressor = zlib.compressobj(_LEVEL, wbits=_WBITS)
    return lambda part: compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
