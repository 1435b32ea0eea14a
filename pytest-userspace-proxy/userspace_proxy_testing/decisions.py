"""Keeps each Service's last ended connections: their client, endpoint and outcome.

The facts are read from the connection log. Each proxy of a test has its own thread, so a record's
thread identifies the proxy. Recorded lines aren't passed on to the program's log.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from userspace_proxy.dataplane.connection_log import LOGGER
from userspace_proxy.model import ServiceKey

KEPT = 1000
"""The number of connections to keep per Service."""


@dataclass(frozen=True, slots=True)
class FailedDial:
    """One failed dial of a connection."""

    endpoint: str
    """The endpoint's address."""
    cause: str
    """The code, such as ``endpoint-refuses`` or ``fault-on-purpose``."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The record of one finished connection."""

    client: str
    """The client's address."""
    endpoint: str
    """The endpoint as text, such as ``str(backend.address)``; empty if none answered."""
    outcome: str
    """The ``cause`` in the connection log, such as ``complete``, ``reset`` or ``unanswered``."""
    dials: int
    """The number of dials; all but the last failed, and so did the last if no endpoint answered."""
    duration_s: float
    """The connection's duration in seconds."""
    received_bytes: int
    """Bytes from the client."""
    sent_bytes: int
    """Bytes to the client."""
    began_at: float = 0.0
    """The Unix time at which the connection began."""
    ended_by: str = ""
    """The side that ended the connection: ``client``, ``endpoint`` or ``proxy``."""
    failed_dials: Sequence[FailedDial] = ()
    """The failed dials, in their order."""

    def __str__(self) -> str:
        endpoint = self.endpoint or "no endpoint"
        dials = f" at dial {self.dials}" if self.dials > 1 else ""
        figures = f"{self.received_bytes} B in, {self.sent_bytes} B out, {self.duration_s:.3f} s"
        return f"{self.client} → {endpoint}{dials}: {self.outcome}, {figures}"


class Decisions(logging.Filter):
    """Records one proxy's connections that end between :meth:`begin` and :meth:`end`.

    It is a filter, not a handler: pytest adds handlers even to loggers that don't propagate.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    """Held while recorders begin and end, which may happen in several threads."""
    _running: ClassVar[list[Decisions]] = []
    _before: ClassVar[tuple[int, bool]] = (logging.NOTSET, False)
    """The logger's level before the first recorder began, and whether it was disabled."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, deque[Decision]] = {}
        self._thread = 0

    def begin(self, thread: int) -> None:
        """Start recording log records of a thread."""
        logger = logging.getLogger(LOGGER)
        with self._lock:
            if not self._running:
                Decisions._before = logger.level, logger.disabled
            self._thread = thread
            self._running.append(self)
            logger.setLevel(logging.INFO)
            # Enable the logger: a program's logging configuration disables loggers that it doesn't
            # name.
            logger.disabled = False
            logger.addFilter(self)

    def end(self) -> None:
        """Stop recording; the last recorder restores the logger. Idempotent."""
        with self._lock:
            if self not in self._running:
                return
            self._running.remove(self)
            logger = logging.getLogger(LOGGER)
            logger.removeFilter(self)
            if not self._running:
                level, logger.disabled = Decisions._before
                logger.setLevel(level)

    def of(self, service: ServiceKey) -> Sequence[Decision]:
        """Return a Service's last ended connections, oldest first."""
        return tuple(self._last.get(str(service), ()))

    def filter(self, record: logging.LogRecord) -> bool:
        """Record this proxy's log records, and return False to drop them; True for others."""
        if record.thread != self._thread:
            return True
        fields = record.__dict__
        service = str(fields["service"]).partition(":")[0].partition(" ")[0]
        last = self._last.setdefault(service, deque(maxlen=KEPT))
        last.append(
            Decision(
                fields["client"],
                fields["endpoint"],
                fields["cause"],
                fields["dials"],
                fields["duration_s"],
                fields["received_bytes"],
                fields["sent_bytes"],
                record.created - fields["duration_s"],
                fields["ended_by"],
                _read_failed(fields["failed"]),
            )
        )
        return False


def _read_failed(text: str) -> Sequence[FailedDial]:
    """Parse the failed dials in a field of the connection log."""
    return [FailedDial(*one.split(" ")) for one in text.split(", ") if one]
