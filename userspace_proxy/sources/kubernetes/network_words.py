"""Describes connection failures in the words of the kernel, TLS or the resolver."""

from __future__ import annotations

import os
import socket
import ssl


def describe(exc: BaseException) -> str:
    """Return one line about an error of a request.

    aiohttp wraps what the system says, sometimes twice; what is innermost says most.
    """
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {_tls_words(cause)}"
        if isinstance(cause, socket.gaierror):
            return f"its name can't be resolved: {cause.strerror}"
        if isinstance(cause, TimeoutError) and not cause.errno:
            return "no response in time"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
    match type(exc).__name__:
        case "ServerDisconnectedError":
            return "it closed the connection without a response"
        case "ClientPayloadError":
            return "its response was cut off"
        case name:
            return " ".join(str(exc).split()) or name


def _causes(exc: BaseException) -> list[BaseException]:
    """Return an error and those inside of it, innermost first."""
    chain: list[BaseException] = []
    following: BaseException | None = exc
    while following is not None and following not in chain:
        chain.append(following)
        inner = getattr(following, "os_error", None) or getattr(
            following, "certificate_error", None
        )
        following = inner or following.__cause__ or following.__context__
    return chain[::-1]


def _tls_words(exc: ssl.SSLError) -> str:
    reason = getattr(exc, "reason", None)  # not in those that Python itself raises
    return (reason or str(exc)).replace("_", " ").lower()
