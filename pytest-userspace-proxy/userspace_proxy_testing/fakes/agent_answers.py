"""Answers of fake agents: the answers of a real proxy, and hostile answers.

    FakeAgent(facts) ──change──▶ /api/v1/status, whole, as a summary, or each change of it
    HOSTILE["huge"]() ─────────▶ answers that must not harm a reader of many nodes

Rule 1: only the test triggers events: a stream sends a line after :meth:`FakeAgent.change`.
Rule 2: a hostile answer is cheap for this process, however expensive for its reader.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence

import msgspec

from userspace_proxy.facts import Level, StatusFacts
from userspace_proxy.facts.encoding import encode_answer
from userspace_proxy.plan.digest import FORM, bucket_of
from userspace_proxy.sources.base import Pause, pause
from userspace_proxy.status.stream import Changes

from .agents import AgentRequest, Answer, response_head
from .port_forward import Send

STATUS, PLAN = "/api/v1/status", "/api/v1/plan"
_GZIP_WBITS = 31
"""zlib's window size that selects the gzip format."""


class FakeAgent:
    """A fake agent that serves its status page; an :data:`~.agents.Answer`.

    Args:
        facts: The status that it serves, as made by :func:`~.agent_status.status_of`.
        digests: The digests of its Services; see :func:`~.agent_status.plan_digests`.
        pages: JSON answers of other pages, by path.
    """

    def __init__(
        self,
        facts: StatusFacts,
        *,
        digests: Mapping[str, str] | None = None,
        pages: Mapping[str, bytes] | None = None,
    ) -> None:
        self.digests = digests
        """The digests; None if the agent lacks the page of its plan."""
        self.requests: list[AgentRequest] = []
        """All requests so far."""
        self._facts = facts
        self._pages = pages or {}
        self._changes = 0
        self._changed = asyncio.Event()

    @property
    def facts(self) -> StatusFacts:
        """The facts that it currently serves."""
        return self._facts

    def change(self, facts: StatusFacts) -> None:
        """Change the answer; each stream sends one line for the changes since its last line."""
        self._facts = facts
        self._changes += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def __call__(self, request: AgentRequest, send: Send) -> None:
        """Answer a request."""
        self.requests.append(request)
        if request.path == PLAN and self.digests is not None:
            await _send_whole(request, send, 200, self._plan(request), compresses=True)
        elif request.path != STATUS:
            body = self._pages.get(request.path)
            await _send_whole(request, send, 404 if body is None else 200, body or b"not found\n")
        elif request.query.get("watch", ["no"])[0] in ("", "1", "true", "yes"):
            await self._stream(request, send)
        else:
            body = encode_answer(self._selected(request))
            await _send_whole(request, send, 200, body, compresses=True)

    async def _stream(self, request: AgentRequest, send: Send) -> None:
        body = _Body(request, send)
        await body.begin("application/x-ndjson")
        changes, seen = Changes(), self._changes
        while True:
            line = changes.line(self._selected(request))
            await body.write(line)
            while seen == self._changes:
                await self._changed.wait()
            seen = self._changes

    def _selected(self, request: AgentRequest) -> StatusFacts:
        if request.query.get("view") != ["summary"]:
            return self._facts
        also = {*request.query.get("also", ())}
        return self._facts.summarised(also)

    def _plan(self, request: AgentRequest) -> bytes:
        wanted = {int(text) for text in request.query.get("bucket", ())}
        digests = {
            name: digest
            for name, digest in (self.digests or {}).items()
            if not wanted or bucket_of(name) in wanted
        }
        return msgspec.json.encode({"form": FORM, "digests": digests}) + b"\n"


class _Body:
    """Sends a body of unknown length, compressed and chunked if the client accepts that."""

    def __init__(self, request: AgentRequest, send: Send) -> None:
        self._send = send
        self._is_chunked = request.is_chunked
        takes_gzip = "gzip" in request.headers.get("accept-encoding", "")
        self._packer = zlib.compressobj(wbits=_GZIP_WBITS) if takes_gzip else None

    async def begin(self, content_type: str) -> None:
        headers = {"Content_Type": content_type}
        if self._is_chunked:
            headers["Transfer_Encoding"] = "chunked"
        if self._packer is not None:
            headers["Content_Encoding"] = "gzip"
        await self._send(response_head(200, **headers))

    async def write(self, data: bytes) -> None:
        """Send data so that the client can read it at once."""
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_SYNC_FLUSH)
        await self._send(b"%x\r\n%s\r\n" % (len(data), data) if self._is_chunked else data)


async def _send_whole(
    request: AgentRequest, send: Send, code: int, body: bytes, *, compresses: bool = False
) -> None:
    headers = {"Content_Type": "application/json"}
    if compresses and "gzip" in request.headers.get("accept-encoding", ""):
        packer = zlib.compressobj(wbits=_GZIP_WBITS)
        body = packer.compress(body) + packer.flush()
        headers["Content_Encoding"] = "gzip"
    await send(response_head(code, **headers, Content_Length=str(len(body))) + body)


def fixed(body: bytes, code: int = 200, **headers: str) -> Answer:
    """Return a constant answer; header names are written with ``_`` instead of ``-``."""

    async def answer(_request: AgentRequest, send: Send) -> None:
        given = {"Content_Type": "application/json", "Content_Length": str(len(body)), **headers}
        await send(response_head(code, **given) + body)

    return answer


def endless(start: bytes, part: bytes, *, every_s: float = 0.0, pause: Pause = pause) -> Answer:
    """Return an endless answer: a start, then the same part over and over.

    Args:
        every_s: Seconds between parts; 0 to send as fast as the client reads.
    """

    async def answer(_request: AgentRequest, send: Send) -> None:
        await send(start)
        while True:
            await send(part)
            await pause(every_s)

    return answer


def slow_drip(every_s: float = 0.05) -> Answer:
    """Return an answer whose body arrives byte by byte and never ends."""
    start = response_head(200, Content_Type="application/json", Content_Length=str(1 << 20))
    return endless(start + b'{"node": "', b"x", every_s=every_s)


def huge(size_bytes: int = 1 << 30) -> Answer:
    """Return an answer that is too long for any reader, with a correct Content-Length."""

    async def answer(_request: AgentRequest, send: Send) -> None:
        await send(
            response_head(200, Content_Type="application/json", Content_Length=str(size_bytes))
        )
        part = b" " * (1 << 20)
        for _ in range(size_bytes >> 20):
            await send(part)

    return answer


def gzip_bomb(size_bytes: int = 1 << 30) -> Answer:
    """Return a compressed answer that grows a thousandfold when unpacked."""
    packer = zlib.compressobj(9, wbits=-15)
    part = packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    # Source: RFC 1952, a header without a file name.
    packed = b"\x1f\x8b\x08" + bytes(6) + b"\xff" + part * (size_bytes >> 20)
    return fixed(packed, Content_Encoding="gzip")


async def _silent(_request: AgentRequest, _send: Send) -> None:
    await asyncio.Event().wait()


async def _closes(_request: AgentRequest, _send: Send) -> None:
    return


TRICKS: Sequence[str] = (
    "\x1b[2J\x1b]0;owned\x07\x1b]52;c;cm0gLXJm\x07",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\u202egnp.exe\u2066\r\nlevel: ok\n\x9b31m",
    "'\"`$(id);|&\x00\\",
)
"""Strings that a terminal or browser would interpret, and strings that fake further lines."""


def forged(facts: StatusFacts, trick: str) -> StatusFacts:
    """Return facts with a string from TRICKS in fields that are shown to people."""
    ports = [
        msgspec.structs.replace(
            port,
            service=f"{port.service}{trick}",
            state=msgspec.structs.replace(
                port.state, level=Level.TROUBLE, sentence=trick, hint=trick
            ),
        )
        for port in facts.ports
    ]
    return msgspec.structs.replace(
        facts, node=trick, verdict=trick, version=trick, commit=trick, ports=ports
    )


def _of_fields(**fields: object) -> Callable[[], Answer]:
    return lambda: fixed(msgspec.json.encode(fields))


_OPEN = response_head(200, Content_Type="application/json")
HOSTILE: Mapping[str, Callable[[], Answer]] = {
    "broken-json": lambda: fixed(b'{"node": "node-1", "ports": [{"namesp'),
    "other-json": lambda: fixed(b'["not", "a", "status"]'),
    "wrong-types": _of_fields(node=7, ports={"a": 1}, revision="many"),
    "wrong-numbers": lambda: fixed(b'{"now": 1e999, "revision": -1e308, "started": 1e400}'),
    "huge-numbers": lambda: fixed(b'{"revision": %s, "now": 1e300}' % (b"9" * 400)),
    "deep-json": lambda: fixed(b'{"more": ' + b"[" * (1 << 20)),
    "not-json": lambda: fixed(b"<html>hello</html>", Content_Type="text/html"),
    "not-utf-8": lambda: fixed(b'{"node": "\xff\xfe"}'),
    "not-http": lambda: endless(b"SSH-2.0-OpenSSH_9.9\r\n", b"\x00" * 1024),
    "tricks": _of_fields(node=TRICKS[0], verdict=TRICKS[1], version=TRICKS[2], commit=TRICKS[3]),
    "huge": huge,
    "false-length": lambda: fixed(b"{}", Content_Length=str(1 << 62)),
    "no-number-as-length": lambda: fixed(b"{}", Content_Length="-1"),
    "endless": lambda: endless(_OPEN, b'{"a":' * 4096),
    "endless-head": lambda: endless(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1024),
    "endless-line": lambda: endless(b"HTTP/1.1 200 ", b"O" * 16384),
    "slow-drip": slow_drip,
    "gzip-bomb": gzip_bomb,
    "broken-gzip": lambda: fixed(b"\x1f\x8b\x08 nothing", Content_Encoding="gzip"),
    "silent": lambda: _silent,
    "closes": lambda: _closes,
    "forbidden": lambda: fixed(b"forbidden\n", 403),
    "fails": lambda: fixed(b"no\n", 500),
    "redirects": lambda: fixed(b"", 302, Location="http://169.254.169.254/latest/meta-data/"),
}
"""By name, functions that return an answer that must not harm a reader of many nodes."""
