"""Responses of the API server and network failures, as values with readable text.

Rule 1: a failure names the server's URL, says in the other side's words what is wrong,
and what to do about it.
Rule 2: what is wrong with the way to the server reads the same for each kind, so that one
cause is one line, however many lists and watches it hits.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UserspaceProxyError
from ...model.wire import DecodeError, Status, decode


class ConnectionTrouble(UserspaceProxyError):
    """No answer could be had, or it broke off; the text is in the network's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read whole."""

    code: int
    body: bytes
    retry_after_s: float = 0.0
    """What the server asks for; 0 for nothing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a list or a watch didn't come to be, or broke off."""

    words: str
    retry_after_s: float = 0.0


def read_status(body: bytes) -> Status:
    """Return the Status in an answer; an empty one where there is none."""
    try:
        return decode(body, Status)
    except DecodeError:
        return Status()


def is_expired(code: int, status: Status) -> bool:
    """Tell whether an answer says that the server doesn't know that state (any more).

    Source: 410 Gone; and 504 with "Too large resource version" where the server is behind
    what we saw, for good if etcd was restored from a backup.
    """
    too_large = "Too large resource version" in (status.message or "")
    return code == 410 or status.reason in ("Expired", "Gone") or too_large


def refusal(url: str, wish: str, answer: Answer, *, credentials: str) -> Failure:
    """Put an answer that isn't 200 into words.

    Args:
        url: The server's.
        wish: What was asked for, as ``list services``.
        answer: What came.
        credentials: What we showed, as ``the token in /etc/token``.
    """
    status = read_status(answer.body)
    said = " ".join((status.message or _text(answer.body)).split())
    said = said or f"HTTP status {answer.code}"
    match answer.code:
        case 401:
            words = (
                f"the API server at {url} rejected the credentials: {said} (check {credentials})"
            )
        case 403:
            words = (
                f"the API server at {url} refuses to {wish}: {said} "
                "(allow this user to get, list and watch services, endpointslices and nodes)"
            )
        case 404:
            words = f"the server at {url} can't {wish}: {said} (check its address and version)"
        case 429:
            words = f"the API server at {url} is busy: {said}"
        case _:
            words = f"the API server at {url} can't {wish}: {said}"
    return Failure(words, answer.retry_after_s)


def _text(body: bytes) -> str:
    """Return the start of an answer that isn't from the API but from a server before it."""
    start = body[:200].decode(errors="replace").strip()
    return "" if start[:1] in ("<", "{") else start


def unreachable(url: str, trouble: ConnectionTrouble) -> Failure:
    """Put trouble on the way to the server into words."""
    return Failure(f"cannot reach the API server at {url}: {trouble}")


def nonsense(url: str, resource: str, what: str) -> Failure:
    """Put an answer that isn't what the API says into words."""
    return Failure(f"invalid response from {url} for {resource}: {what}")
