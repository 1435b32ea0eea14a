"""Dials addresses now, as many at once as are given, and measures how long they take to answer.

connect ──▶ answered after 0.4 ms ──▶ 0.2 s later: still open, reset or closed?
       └──▶ refused, no route, 3 s of silence

A running proxy's own probes are ``dataplane.probe_dials``; here there is no event loop, and the
time counts, and what follows the answer.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..causes.cause import Cause
from ..causes.endpoints import absent, dial_failed, resets
from ..kernel.neighbours import absent_hop, own_route_failure
from ..model import SocketAddress
from ..model.failures import BY_OWN_ROUTE, NO_ANSWER, dial_failure

SILENCE_S = 3.0
"""As long as a client of the proxy waits for all endpoints together."""
# A program that ends connections without a byte does so as soon as it has accepted them.
_ENDS_WITHIN_S = 0.2
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class DialResult:
    """The result of one dial."""

    seconds: float
    """Until the connection was open, or had failed."""
    cause: Cause | None = None
    """Why it failed; None if the address answered."""
    error: str = ""
    """The same in the kernel's words."""
    has_no_route: bool = False
    """This machine has no route to the address, or one that leads nowhere: nothing was sent."""


def dial_all(addresses: Iterable[SocketAddress]) -> dict[str, DialResult]:
    """Dial addresses over TCP; return the results by address.

    It blocks for at most some 3 s for each 32 addresses.
    """
    wanted = list(dict.fromkeys(addresses))
    if not wanted:
        return {}
    with ThreadPoolExecutor(min(_AT_ONCE, len(wanted))) as pool:
        return {str(at): result for at, result in zip(wanted, pool.map(dial, wanted), strict=True)}


def dial(address: SocketAddress, *, silence_s: float = SILENCE_S) -> DialResult:
    """Dial one address over TCP, without sending a byte."""
    family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    begin = time.monotonic()
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(silence_s)
        try:
            sock.connect((address.ip, address.port))
        except OSError as exc:
            # A timeout of settimeout has no errno.
            number = exc.errno or errno.ETIMEDOUT
            error = exc.strerror or os.strerror(number)
            seconds = time.monotonic() - begin
            failed = dial_failure(number, address.ip)
            if failed.failure in NO_ANSWER and (hop := absent_hop(address.ip)):
                return DialResult(seconds, absent(address, hop), error)
            failure = own_route_failure(failed, address.ip).failure
            cause = dial_failed(address, failure, error)
            return DialResult(seconds, cause, error, has_no_route=failure in BY_OWN_ROUTE)
        seconds = time.monotonic() - begin
        if _ends(sock):
            return DialResult(seconds, resets(address), "the connection ends at once")
        return DialResult(seconds)


def _ends(sock: socket.socket) -> bool:
    """Return whether the peer ends the connection without having sent a byte."""
    readable, _, _ = select.select([sock], [], [], _ENDS_WITHIN_S)
    if not readable:
        return False
    try:
        return not sock.recv(1)
    except OSError:
        return True
