"""Keeps the last connections of each Service: who dialled, which endpoint answered, how it ended.

The facts are those of the connection log: each proxy of a test has a thread of its own, so the
thread of a record shows whose it is. What a recorder keeps isn't passed on to the program's log.
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
"""Connections of each Service."""


@dataclass(frozen=True, slots=True)
class FailedDial:
    """An endpoint that was dialled, and didn't answer."""

    endpoint: str
    """Its address."""
    cause: str
    """The code: ``endpoint-refuses``, ``fault-on-purpose``, …"""


@dataclass(frozen=True, slots=True)
class Decision:
    """One connection that has ended."""

    client: str
    """Its address."""
    endpoint: str
    """As text, such as ``str(backend.address)``; empty if none answered."""
    outcome: str
    """The cause in the connection log: ``complete``, ``reset``, ``unanswered``, ``evicted``."""
    dials: int
    """How many endpoints were dialled; more than one: the first ones failed."""
    duration_s: float
    """Seconds."""
    received_bytes: int
    """From the client."""
    sent_bytes: int
    """To the client."""
    began_at: float = 0.0
    """Unix time."""
    ended_by: str = ""
    """``client``, ``endpoint``, ``proxy``."""
    failed_dials: Sequence[FailedDial] = ()
    """The endpoints before this one, in the order in which they were dialled."""

    def __str__(self) -> str:
        endpoint = self.endpoint or "no endpoint"
        dials = f" at dial {self.dials}" if self.dials > 1 else ""
        figures = f"{self.received_bytes} B in, {self.sent_bytes} B out, {self.duration_s:.3f} s"
        return f"{self.client} → {endpoint}{dials}: {self.outcome}, {figures}"


class Decisions(logging.Filter):
    """Records the connections of one proxy that end between :meth:`begin` and :meth:`end`.

    A filter, not a handler: pytest has handlers of its own, even at loggers that don't propagate.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    """Held while a recorder begins or ends, which several threads may do."""
    _running: ClassVar[list[Decisions]] = []
    _before: ClassVar[tuple[int, bool]] = (logging.NOTSET, False)
    """Level of the logger before the first recorder began, and whether it was disabled."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, deque[Decision]] = {}
        self._thread = 0

    def begin(self, thread: int) -> None:
        """Start recording what a thread logs."""
        logger = logging.getLogger(LOGGER)
        with self._lock:
            if not self._running:
                Decisions._before = logger.level, logger.disabled
            self._thread = thread
            self._running.append(self)
            logger.setLevel(logging.INFO)
            # A configuration of the program's log disables what it doesn't name.
            logger.disabled = False
            logger.addFilter(self)

    def end(self) -> None:
        """Stop recording, and restore the logger after the last recorder. Idempotent."""
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
        """Return the last ones of a Service, the oldest first."""
        return tuple(self._last.get(str(service), ()))

    def filter(self, record: logging.LogRecord) -> bool:
        """Part of Filter: keep a record of this proxy, and pass on those of others."""
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
    """Return the failed dials in a field of the connection log."""
    return [FailedDial(*one.split(" ")) for one in text.split(", ") if one]
