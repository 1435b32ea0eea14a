"""Streams updates of a page and of its JSON, which contain only changes.

    sample ─┬▶ parts of the page for one selection ─▶ parts that the client lacks ─▶ events
            └▶ answer of the JSON for one selection ─▶ its changes ─▶ lines

Rule 1: the first message contains everything, so a client that reconnects is up to date.
Rule 2: a client that reads slowly gets fewer updates; at most one message is queued for it.
Rule 3: at the limit of streams, the oldest stream of the client with the most streams is closed for
a client that has at least two fewer; otherwise the new stream is refused. A client is a user of
this node, or an address.
Rule 4: a stream lasts while its client reads. Where connections are limited, streams are closed
before connections that wait for an answer, and the client reconnects.
Rule 5: a stream with an interval, which readers of many nodes request, takes at most a hundredth of
a core: its interval is extended accordingly.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

from aiohttp import web

from ..facts import PortFacts, StatusFacts
from ..facts.encoding import encode_answer
from ..kernel.netlink.socket_users import user_of
from ..model import SocketAddress
from ..pacing import Pacing
from .answer_form import EVERY_MAX_S, NO_HEADERS, AnswerForm, flushed_parts, headers_for
from .answers import make_answer
from .connections import note_request, write
from .http_answer import PORT_KEY
from .markup import Parts
from .page import build_page, render_parts
from .sampling import Sample, Sampler
from .selection import Selection

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")
_Id = tuple[str, ...]

_NOT_COMPARED = ("now", "ports")

# The maximum number of open streams. Each one may take some 30 ms of every second; a browser has a
# stream only for a visible page.
MAX_STREAMS = 16
# How long a client whose connection was closed waits before it reconnects.
_RETRY_MS = 1000
# The share of a core that a stream with an interval may use. With 2,000 Services without traffic a
# sample takes some 40 ms, so messages are at least 4 s apart.
_SHARE = 0.01


class Sent:
    """The parts that one client has received."""

    def __init__(self) -> None:
        self._parts: Parts | None = None

    def message(self, parts: Parts) -> bytes:
        """Return the event that brings the client up to date; it contains at least the time.

        A row that disappears and reappears is sent again.
        """
        before, self._parts = self._parts, parts
        known = before.html if before is not None else {}
        html = {name: text for name, text in parts.html.items() if known.get(name) != text}
        changes: dict[str, object] = {"at": parts.at} | ({"html": html} if html else {})
        for name in ("title", "level", "rows"):
            if (value := getattr(parts, name)) != getattr(before, name, None):
                changes[name] = value
        return b"data: %s\n\n" % json.dumps(changes).encode()


class OpenStreams:
    """The open streams of one server, by client."""

    def __init__(self) -> None:
        self._open: dict[asyncio.Task[object], int | str] = {}
        """The open streams, each with its client, the oldest first."""

    async def send_events(
        self, request: web.Request, events: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        """Send the updates of a page, like :meth:`send`."""
        first = b"retry: %d\n\n" % _RETRY_MS
        return await self.send(request, "text/event-stream", events, first=first)

    async def send(
        self,
        request: web.Request,
        content_type: str,
        messages: AsyncIterator[bytes],
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        first: bytes = b"",
    ) -> web.StreamResponse:
        """Send messages until a disconnect, unless the request is cross-site, or refused by Rule 3.

        Args:
            first: Sent immediately.
        """
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # A website can't read a stream, but it could use up all of them.
            return web.Response(status=403, text="Other web sites may not open streams.\n")
        task = asyncio.current_task()
        client = _client_of(request)
        if task is None or not self._make_room(client):
            text = f"{MAX_STREAMS} pages are open already; close one of them.\n"
            return web.Response(status=503, text=text)
        self._open[task] = client
        response = web.StreamResponse(headers={"Content-Type": content_type, **headers})
        try:
            await response.prepare(request)
            await response.write(first)
            async for message in messages:
                await write(request, response, message)
                note_request(request)
        except ConnectionResetError:
            pass
        finally:
            self._open.pop(task, None)
        return response

    def close(self) -> None:
        for task in self._open:
            task.cancel()

    def _make_room(self, client: int | str) -> bool:
        """Make room for one more stream of a client; return whether there is room.

        If necessary, this closes the oldest stream of the client with the most streams, unless that
        client would then have fewer streams than this one.
        """
        if len(self._open) < MAX_STREAMS:
            return True
        counts = Counter(self._open.values())
        ((largest, most),) = counts.most_common(1)
        if counts[client] + 1 >= most:
            # The client whose stream is closed would reconnect, and close this one.
            return False
        oldest = next(task for task, owner in self._open.items() if owner == largest)
        del self._open[oldest]
        oldest.cancel()
        return True


class Streams:
    """The streams of one proxy's status server."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._open = OpenStreams()
        self._parts: _Shared[Selection, Parts] = _Shared(sampler)
        self._answers: _Shared[Hashable, StatusFacts] = _Shared(sampler)

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Send updates of the page until the client disconnects."""
        selection, sent = Selection.parse(request.query), Sent()

        async def event(count: int, sample: Sample) -> bytes:
            parts = await self._parts.get(
                selection, count, lambda: render_parts(build_page(sample, selection))
            )
            return sent.message(parts)

        return await self._open.send_events(request, self._messages(event))

    async def json(
        self, request: web.Request, service: str, form: AnswerForm
    ) -> web.StreamResponse:
        """Send updates of the JSON about ``service``, or all Services, until a disconnect."""
        selection, changes = Selection.parse(request.query), Changes()
        key, sent = (selection, service, form), flushed_parts(form.is_gzip)

        def make(sample: Sample) -> StatusFacts:
            view = sample.view
            part = view.only(service) if service else view
            answer = make_answer(part, now=sample.now, selection=selection, whole=view)
            return form.of(answer)

        async def line(count: int, sample: Sample) -> bytes:
            answer = await self._answers.get(key, count, lambda: make(sample))
            return await self._sampler.work(lambda: sent(changes.line(answer)))

        lines = self._messages(line, every_s=form.every_s)
        return await self._open.send(
            request, "application/x-ndjson", lines, headers=headers_for(form.is_gzip)
        )

    def close(self) -> None:
        self._open.close()

    async def _messages(
        self,
        message: Callable[[int, Sample], Awaitable[bytes]],
        *,
        every_s: float | None = None,
    ) -> AsyncIterator[bytes]:
        """Yield a message for each sample; ``message`` gets the sample's number.

        Args:
            every_s: Seconds between two messages, or more by Rule 5; nothing is sampled for this
                client in between. None for a message per sample.
        """
        count = 0
        while True:
            began_s = time.process_time()
            count, sample = await self._sampler.after(count)
            yield await message(count, sample)
            if every_s is not None:
                wait_s = pause_after(time.process_time() - began_s, every_s)
                await asyncio.sleep(wait_s)  # noqa: TID251 - the interval
                count = 0


def pause_after(cpu_s: float, every_s: float) -> float:
    """Return the pause in seconds after a message that took ``cpu_s`` of CPU time (Rule 5)."""
    return Pacing(_SHARE, every_s, EVERY_MAX_S).wait_s(cpu_s)


def _client_of(request: web.Request) -> int | str:
    """Return a client's user if it is on this node, else its address; empty if it has left."""
    transport = request.transport
    if transport is None:
        return ""
    ends = [transport.get_extra_info(name)[:2] for name in ("peername", "sockname")]
    user = user_of(*(SocketAddress(*end) for end in ends))
    return ends[0][0] if user is None else user


class _Shared(Generic[_Key, _Made]):
    """The last result for each key, made from a sample; many clients share it."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._turn = asyncio.Lock()
        self._made: dict[_Key, tuple[int, _Made]] = {}

    async def get(self, key: _Key, count: int, make: Callable[[], _Made]) -> _Made:
        """Return the result for a key, made from the sample with this number or a later sample.

        Args:
            make: Called in a thread.
        """
        async with self._turn:
            last = self._made.get(key)
            if last is None or last[0] < count:
                last = count, await self._sampler.work(make)
                recent = {k: made for k, made in self._made.items() if made[0] >= count}
                self._made = {**recent, key: last}
            return last[1]


class Changes:
    """The changes that one client of ``/api/v1/status`` hasn't received yet, as lines of JSON.

    Each line after the first one contains ``now``, all other fields that differ, and only those
    ``ports`` that differ; ``gone`` names ports that are no longer selected.
    """

    def __init__(self) -> None:
        self._sent: StatusFacts | None = None
        self._ports: dict[_Id, PortFacts] = {}

    def line(self, answer: StatusFacts) -> bytes:
        """Return the line that brings the client up to date; an empty line if it already is."""
        before, self._sent = self._sent, answer
        known, self._ports = self._ports, {_id(port): port for port in answer.ports}
        if before is None:
            return encode_answer(answer)
        changes: dict[str, object] = {
            name: getattr(answer, name)
            for name in answer.__struct_fields__
            if name not in _NOT_COMPARED and getattr(answer, name) != getattr(before, name)
        }
        ports = [port for key, port in self._ports.items() if known.get(key) != port]
        gone = [dict(zip(PORT_KEY, key, strict=True)) for key in known if key not in self._ports]
        if ports:
            changes["ports"] = ports
        if gone:
            changes["gone"] = gone
        return encode_answer({"now": answer.now, **changes}) if changes else b"\n"


def _id(port: PortFacts) -> _Id:
    return port.namespace, port.service, port.port, port.family, port.side
