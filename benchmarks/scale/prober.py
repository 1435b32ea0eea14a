"""Dials Services from the clients' namespace, and reports when a condition is met.

Times are CLOCK_MONOTONIC, in seconds. The outcome "refused" means that no backend answered.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence
from typing import Any

from .command_process import serve
from .objects import FRONT

REFUSED = "refused"
# The kernel repeats a dropped SYN only after a second, so dial again earlier.
ATTEMPT_S = 0.25
EVERY_S = 0.001
_ASK = b"GET / HTTP/1.0\r\n\r\n"
_KEEP = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_PARALLEL = 32


def wait_until(ip: str, want: Sequence[str], seconds: float) -> dict[str, float]:
    """Dial until one of the wanted outcomes occurs; raise TimeoutError if none does in time.

    Returns:
        ``at``: its time; ``last_other``: the time of the last other outcome, or 0; ``tries``.
    """
    deadline = time.monotonic() + seconds
    last_other, tries = 0.0, 0
    while True:
        outcome = dial(ip)
        now = time.monotonic()
        tries += 1
        if outcome in want:
            return {"at": now, "last_other": last_other, "tries": tries}
        last_other = now
        if now > deadline:
            raise TimeoutError(f"{ip} answers {outcome!r} and not {want} after {seconds:g} s")
        pause(EVERY_S)


def wait_for_all(ips: Sequence[str], seconds: float) -> dict[str, float]:
    """Dial addresses one after the other until each has answered; return the last answer's time."""
    deadline = time.monotonic() + seconds
    for ip in ips:
        while dial(ip) == REFUSED:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{ip} doesn't answer after {seconds:g} s")
            pause(EVERY_S * 5)
    return {"at": time.monotonic()}


def count_unanswered(ips: Sequence[str], seconds: float) -> dict[str, int]:
    """Dial each address once, in parallel; return the number that didn't answer in time."""
    rest = list(ips)
    waiting: dict[int, tuple[socket.socket, bool]] = {}
    poll = select.poll()
    failed = 0
    deadline = time.monotonic() + seconds
    while (rest or waiting) and time.monotonic() < deadline:
        while rest and len(waiting) < _PARALLEL:
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex((rest.pop(), FRONT))
            waiting[sock.fileno()] = sock, False
            poll.register(sock, select.POLLOUT)
        for fd, _events in poll.poll(1000):
            sock, has_asked = waiting[fd]
            try:
                if not has_asked:
                    sock.send(_ASK)
                    waiting[fd] = sock, True
                    poll.modify(sock, select.POLLIN)
                    continue
                failed += not sock.recv(4096)
            except OSError:
                failed += 1
            poll.unregister(sock)
            del waiting[fd]
            sock.close()
    for sock, _ in waiting.values():
        sock.close()
    return {"unanswered": failed + len(rest) + len(waiting)}


def keep_asking(ip: str, seconds: float, every_s: float) -> dict[str, float]:
    """Send periodic requests on one connection; return quantiles of their durations in seconds."""
    took: list[float] = []
    end = time.monotonic() + seconds
    with socket.create_connection((ip, FRONT), 5) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (began := time.monotonic()) < end:
            sock.sendall(_KEEP)
            if not sock.recv(4096):
                raise ConnectionError(f"{ip} has closed the connection")
            took.append(time.monotonic() - began)
            pause(every_s)
    took.sort()
    return {
        "count": len(took),
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
        "p999": took[len(took) * 999 // 1000],
        "max": took[-1],
    }


def dial(ip: str) -> str:
    """Return the name that the backend answers, or REFUSED."""
    with socket.socket() as sock:
        sock.settimeout(ATTEMPT_S)
        try:
            sock.connect((ip, FRONT))
            sock.sendall(_ASK)
            text = b"".join(iter(lambda: sock.recv(4096), b""))
        except OSError:
            return REFUSED
    return text.rpartition(b"\r\n\r\n")[2].decode().strip() or REFUSED


def pause(seconds: float) -> None:
    """Sleep, so that other processes can run."""
    select.select([], [], [], seconds)


def main() -> None:
    """Run commands until standard input ends."""
    commands: dict[str, Any] = {
        "wait_until": wait_until,
        "wait_for_all": wait_for_all,
        "count_unanswered": count_unanswered,
        "keep_asking": keep_asking,
    }
    serve(commands)


if __name__ == "__main__":
    main()
