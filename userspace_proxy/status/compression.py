"""Compresses answers for clients that accept gzip, whole ones and streams of lines.

Rule 1: what has been written of a stream can be read at once: each part is flushed.
Rule 2: the fastest level, as for metrics: names and fields repeat, so it leaves little more than
the others.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from prometheus_client.exposition import gzip_accepted

_LEVEL = 1
# zlib's number for gzip.
_WBITS = 31

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_GZIP_HEADERS = MappingProxyType({"Content-Encoding": "gzip"})

Write = Callable[[bytes], bytes]
"""Returns what is sent of the next part."""


def accepts_gzip(headers: Mapping[str, str]) -> bool:
    """Return whether a client reads gzip, by the headers of its request."""
    return gzip_accepted(headers.get("Accept-Encoding", ""))


def headers_for(is_gzip: bool) -> Mapping[str, str]:
    """Return the headers of an answer, compressed or not."""
    return _GZIP_HEADERS if is_gzip else NO_HEADERS


def compressed(body: bytes, is_gzip: bool) -> bytes:
    """Return a whole answer, compressed or not."""
    return gzip.compress(body, _LEVEL, mtime=0) if is_gzip else body


def flushed_parts(is_gzip: bool) -> Write:
    """Return what makes of each part of a stream what is sent of it."""
    if not is_gzip:
        return bytes
    compressor = zlib.compressobj(_LEVEL, wbits=_WBITS)
    return lambda part: compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
