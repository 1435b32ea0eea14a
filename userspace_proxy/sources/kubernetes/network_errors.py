"""Describes connection failures in the words of the kernel, TLS or the resolver."""

from __future__ import annotations

import errno
import os
import socket
import ssl

_NO_PORT = " (most likely no source port is free here: `ss -s`, net.ipv4.ip_local_port_range)"


def describe(exc: BaseException) -> str:
    """Return the reason for a failed request, on one line.

    aiohttp wraps the system's errors, some of them twice; the innermost error is the most precise.
    """
    from aiohttp import ClientHttpProxyError, ClientPayloadError, ServerDisconnectedError

    causes = _causes(exc)
    for cause in causes:
        if isinstance(cause, ClientHttpProxyError):
            return f"CONNECT was answered with {cause.status} {cause.message}".rstrip()
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return f"TLS failed: {_tls_reason(cause)}"
        if isinstance(cause, socket.gaierror):
            return f"its name can't be resolved: {cause.strerror}"
        if isinstance(cause, UnicodeError):
            return "its name can't be resolved: it is none that DNS can have"
        if isinstance(cause, TimeoutError) and not cause.errno:
            return "no response in time"
        if isinstance(cause, OSError) and cause.errno:
            # asyncio's text contains the address, but is the only text for Windows' error numbers.
            text = cause.strerror if getattr(cause, "winerror", None) else None
            more = _NO_PORT if cause.errno == errno.EADDRNOTAVAIL else ""
            return f"{text or os.strerror(cause.errno)}{more}"
    if isinstance(exc, ClientPayloadError):
        return "its response was cut off"
    # A reset without an errno means that the connection was closed during the TLS handshake.
    closed = (ServerDisconnectedError, ConnectionResetError)
    if any(isinstance(cause, closed) for cause in causes):
        return "it closed the connection without a response"
    # The full text of an error about a response contains the URL of the proxy with its password, so
    # use only its message.
    return " ".join(str(getattr(exc, "message", "") or exc).split()) or type(exc).__name__


def _causes(exc: BaseException) -> list[BaseException]:
    """Return an error and the errors that it wraps, innermost first."""
    chain: list[BaseException] = []
    following: BaseException | None = exc
    while following is not None and following not in chain:
        chain.append(following)
        inner = getattr(following, "os_error", None) or getattr(
            following, "certificate_error", None
        )
        following = inner or following.__cause__ or following.__context__
    return chain[::-1]


def _tls_reason(exc: ssl.SSLError) -> str:
    reason = getattr(exc, "reason", None)  # Errors that Python itself raises have no reason.
    words = (reason or str(exc)).replace("_", " ").lower()
    # OpenSSL's errors for plain text, before and since version 3.2.
    is_plain = reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
    return f"{words}: it may speak HTTP" if is_plain else words
