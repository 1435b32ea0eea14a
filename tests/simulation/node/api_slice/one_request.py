"""One list, page or watch, and the question about history: what has arrived of it.

Rule 1: what the client has got is read here on its own, from the bytes that arrived.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..api_exchange import Exchange
from .wrong_answers import event_of, follows, page_of


class Question:
    """Whether history has gone back, which is asked while a watch is open."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.answer = bytearray()

    @property
    def is_answered(self) -> bool:
        """Whether the answer has ended, or has broken off."""
        return bool(self.exchange.is_ended or self.exchange.error)

    @property
    def is_good(self) -> bool:
        """Whether the watch goes on after the answer."""
        is_whole = self.exchange.is_ended and not self.exchange.error
        is_busy = self.exchange.code >= 500 or self.exchange.code == 429
        return is_whole and not is_busy and not self.has_gone_back

    @property
    def has_gone_back(self) -> bool:
        """Whether the answer is that the server lacks the state."""
        return _is_gone(self.exchange, self.answer)


class Request:
    """What is known of one request.

    Args:
        before: The one before, of the same kind.
        line_bytes: What a line of a watch has at most.
    """

    def __init__(self, exchange: Exchange, before: Request | None, *, line_bytes: int) -> None:
        query = exchange.query
        self.exchange = exchange
        self._line_bytes = line_bytes
        self.is_watch, self.is_paging = "watch" in query, "continue" in query
        self.began_at = 0.0
        """When the head of the response came."""
        self.over_at = 0.0
        """When it ended, or broke off."""
        self.is_over = False
        self.data = bytearray()
        """What has arrived and isn't read yet."""
        self.version = ""
        """From where a watch begins; of a list, where the last watch began."""
        self.versions: list[str] = []
        """Those of a watch's lines, in order; of a list, those of the last watch."""
        self.events = 0
        self.is_expired = self.went_back = False
        self.follows_wrong = ""
        """What has to follow a watch that a line has ended which isn't the API's: ``watch`` or
        ``list``; empty: there is none."""
        self.is_too_long = False
        """It was too long, so that what came with it may not have been read."""
        self.page: dict[str, Any] | None = None
        """A page, if it is complete."""
        self.is_late = False
        """A page or a refusal was complete at its list's deadline, so the list may have been given
        up."""
        self.question: Question | None = None
        """Of a watch."""
        if self.is_watch:
            self.version = query["resourceVersion"] or ""
        elif before is not None:
            self.version, self.versions = before.version, before.versions

    @property
    def position(self) -> str:
        """The last version that was seen."""
        return self.versions[-1] if self.versions else self.version

    @property
    def newest(self) -> int:
        """The newest version that was seen, also if an older one has followed; 0: there is none."""
        return max(int(version or 0) for version in (self.version, *self.versions))

    @property
    def lasted_s(self) -> float:
        """How long the response was read for, in seconds."""
        return self.over_at - self.began_at if self.began_at else 0.0

    @property
    def next_token(self) -> str | None:
        """What continues a list, by a page that is complete."""
        return None if self.page is None else self.page["metadata"].get("continue")

    @property
    def is_whole_list(self) -> bool:
        """Whether this was a list's last page, and complete."""
        return self.page is not None and not self.next_token

    @property
    def is_left(self) -> bool:
        """Whether the client gave it up, if it makes another one now."""
        is_read = self.is_over and (self.question is None or self.question.is_answered)
        return not is_read or self.is_late

    @property
    def is_gone(self) -> bool:
        """Whether the response is that the server lacks a state."""
        return _is_gone(self.exchange, self.data)

    def take_lines(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """Yield the events of a watch that are complete with a piece."""
        if self.follows_wrong or (b"\n" not in piece and len(self.data) <= self._line_bytes):
            return
        *lines, rest = self.data.split(b"\n")
        self.data[:] = rest
        if any(len(each) > self._line_bytes for each in (*lines, rest)):
            self.is_too_long, self.follows_wrong = True, "list"
        for line in lines:
            event = event_of(bytes(line), self._line_bytes)
            if wrong := follows(event):
                # Unless another one has ended the watch before.
                self.follows_wrong = "" if self.is_expired or self.went_back else wrong
                return
            if event["type"] == "ERROR":
                self.is_expired = event["object"].get("code") == 410
                continue
            self.events += 1
            version = event["object"]["metadata"]["resourceVersion"]
            self.went_back = self.went_back or int(version) < int(self.position or 0)
            self.versions.append(version)
            if not self.went_back:
                # What is older than what was seen isn't taken.
                yield event

    def read_page(self) -> bool:
        """Read a page that has ended; return whether it is complete."""
        self.page = page_of(bytes(self.data))
        return self.page is not None

    def begin_at(self, version: str) -> None:
        """Note that a list is complete: the next watch begins at its version."""
        self.version, self.versions = version, []


def _is_gone(exchange: Exchange, body: bytearray) -> bool:
    """Return whether a response says that the server lacks a state."""
    try:
        status = json.loads(bytes(body))
    except ValueError:
        # It ended within the body.
        status = {}
    return exchange.code == 410 or "Too large resource version" in status.get("message", "")
