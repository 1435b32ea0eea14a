"""Reads lists of the API server as streams of items.

Rule 1: only part of a list is in memory, and the event loop runs between parts of about
BATCH_BYTES, however fast data arrives.
Rule 2: besides the limit on silence, a list has a deadline, in the reflector or :func:`read_whole`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence

from ...model.wire import Metadata
from ..base import Pause, pause
from .client import RESPONSE_S, ApiClient
from .list_body import ListBody
from .responses import Response, TransportError

LIST_S = 600.0
"""The maximum seconds for a list. 10,000 Services from a real API server take 2 s, 1 GiB 10 s."""
BATCH_BYTES = 64 << 10
"""Bytes per iteration of the event loop: about 2 ms (40 Services, or 250 endpoints)."""

Take = Callable[[Sequence[bytes]], None]
"""Receives some of a list's items, as JSON."""


async def read_page(
    client: ApiClient,
    path: str,
    query: Mapping[str, str],
    take: Take,
    *,
    pause: Pause = pause,
) -> Metadata | Response:
    """Read one page; return its metadata, or the response if its code isn't 200.

    Raises:
        TransportError: There is no response, or it was interrupted, or silent for RESPONSE_S.
        FieldError: The body isn't a valid list; earlier items were taken.
    """
    async with client.stream(path, query) as stream:
        if stream.code != 200:
            return await stream.rest()
        body = ListBody()
        while True:
            try:
                chunk = await stream.read(silence_s=RESPONSE_S)
            except TimeoutError as exc:
                raise TransportError(f"nothing more within {RESPONSE_S:g} s") from exc
            for batch in batches(body.feed(chunk)):
                take(batch)
                await pause(0)
            if not chunk:
                return body.metadata
            # Yield to other tasks, even if the server sends faster than this task reads.
            await pause(0)


async def read_whole(
    client: ApiClient,
    path: str,
    query: Mapping[str, str],
    take: Take,
    *,
    within_s: float = LIST_S,
) -> Response | None:
    """Read a list page by page; return the first response whose code isn't 200, if any.

    Raises:
        TransportError: See :func:`read_page`, or the list is incomplete after ``within_s`` seconds.
        FieldError: See :func:`read_page`.
    """
    asked = dict(query)
    try:
        async with asyncio.timeout(within_s):
            while True:
                page = await read_page(client, path, asked, take)
                if isinstance(page, Response):
                    return page
                if not page.continue_:
                    return None
                asked["continue"] = page.continue_
                asked.pop("resourceVersion", None)
    except TimeoutError as exc:
        raise TransportError(incomplete_after(within_s)) from exc


def incomplete_after(seconds: float) -> str:
    """Return the error text for a list that exceeded its deadline."""
    return f"a list isn't complete after {seconds:g} s"


def batches(items: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield JSON items in parts of about BATCH_BYTES, each with at least one item."""
    start = size = 0
    for i, item in enumerate(items):
        size += len(item)
        if size >= BATCH_BYTES:
            yield items[start : i + 1]
            start, size = i + 1, 0
    if start < len(items):
        yield items[start:]
