"""Converts the API server's responses and network failures to values with readable text.

Rule 1: the text of a failure contains the server's URL, the cause in the server's or the kernel's
words, and the remedy if one is known.
Rule 2: a failure to reach the server has the same text for each resource, so that one cause is one
line, however many lists and watches there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UserspaceProxyError
from ...model.wire import FieldError, WireStatus, decode

OTHERS_RETRY_AFTER_MAX_S = 5.0
"""The maximum wait that a server in front of the API server can request, except with a 429; it is
the longest wait without a Retry-After header."""


class TransportError(UserspaceProxyError):
    """A failure to receive a complete response; the text is the cause."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response that was read completely."""

    code: int
    body: bytes
    retry_after_s: float = 0.0
    """Seconds to wait, as requested by the server; 0 if it requests none."""


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """The reason why a list or watch failed, and the wait that the server requests."""

    text: str
    retry_after_s: float = 0.0


def read_status(body: bytes) -> WireStatus:
    """Parse the Status in a response; empty if there is none."""
    try:
        return decode(body, WireStatus)
    except FieldError:
        return WireStatus()


def cause_of(response: Response) -> str:
    """Return the server's message for an error, or its HTTP status."""
    return read_status(response.body).message or f"HTTP status {response.code}"


def is_expired(code: int, status: WireStatus) -> bool:
    """Return whether the server doesn't have the requested state.

    Source: 410 Gone; and 504 with "Too large resource version" if the server's state is older than
    the last seen state, permanently if etcd was restored from a backup.
    """
    too_large = "Too large resource version" in (status.message or "")
    return code == 410 or status.reason in ("Expired", "Gone") or too_large


def rejected(
    url: str, verb: str, kind: str, response: Response, *, credentials: str
) -> RequestFailure:
    """Describe a response whose code isn't 200.

    Args:
        verb: The requested verb, such as ``list``.
        kind: The resource, such as ``services``.
        credentials: The credentials that were sent, such as ``the token in /etc/token``.
    """
    status = read_status(response.body)
    cause = " ".join((status.message or _text(response.body)).split())
    cause = cause or f"HTTP status {response.code}"
    match response.code:
        case 401:
            text = (
                f"the API server at {url} rejected the credentials: {cause} (check {credentials})"
            )
        case 403:
            kinds = "pods" if kind == "pods" else "services, endpointslices and nodes"
            text = (
                f"the API server at {url} refuses to {verb} {kind}: {cause} "
                f"(allow this user to get, list and watch {kinds})"
            )
        case 404:
            text = (
                f"the server at {url} can't {verb} {kind}: {cause} (check its address and version)"
            )
        case 429:
            text = f"the API server at {url} is busy: {cause}"
        case _:
            text = f"the API server at {url} can't {verb} {kind}: {cause}"
    retry_after_s = response.retry_after_s
    # The API server itself sends 429 as plain text when it limits concurrent requests, so the
    # Retry-After of a 429 isn't capped.
    if response.code != 429 and status.kind != "Status":
        retry_after_s = min(retry_after_s, OTHERS_RETRY_AFTER_MAX_S)
    return RequestFailure(text, retry_after_s)


def _text(body: bytes) -> str:
    """Return the start of a plain-text response; empty for HTML and JSON."""
    start = body[:200].decode(errors="replace").strip()
    return "" if start[:1] in ("<", "{") else start


def unreachable(url: str, error: TransportError) -> RequestFailure:
    """Describe a failure to reach the server."""
    return RequestFailure(f"cannot reach the API server at {url}: {error}")


def invalid(url: str, resource: str, problem: str) -> RequestFailure:
    """Describe a response that violates the API."""
    return RequestFailure(f"invalid response from {url} for {resource}: {problem}")


def cut_off(url: str, resource: str, cause: str) -> RequestFailure:
    """Describe watches that are repeatedly interrupted before their first event."""
    return RequestFailure(
        f"watches of {resource} from {url} break off at once: {cause} "
        "(check proxies and load balancers in front of it)"
    )
