"""Keeps the last connections of each Service: who dialled, which endpoint answered, how it ended.

The facts are those of the connection log: each proxy of a test has a thread of its own, so the
thread of a record tells whose it is. While a recorder runs, that logger passes nothing on to the
program's own log.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..dataplane.connection_log import LOGGER
from ..model import ServiceKey

KEPT = 10


@dataclass(frozen=True, slots=True)
class Decision:
    """One connection that has ended."""

    client: str
    endpoint: str
    """Empty if none answered."""
    outcome: str
    """The cause in the connection log: ``complete``, ``reset``, ``unanswered``, ``evicted``."""
    dials: int
    """How many endpoints were dialled; more than one: the first ones failed."""
    duration_s: float
    received_bytes: int
    sent_bytes: int

    def __str__(self) -> str:
        endpoint = self.endpoint or "no endpoint"
        dials = f" at dial {self.dials}" if self.dials > 1 else ""
        figures = f"{self.received_bytes} B in, {self.sent_bytes} B out, {self.duration_s:.3f} s"
        return f"{self.client} → {endpoint}{dials}: {self.outcome}, {figures}"


class Decisions(logging.Handler):
    """Records the connections of one proxy that end between :meth:`begin` and :meth:`end`."""

    _running: ClassVar[list[Decisions]] = []
    _before: ClassVar[tuple[int, bool]] = (logging.NOTSET, True)
    """Level and propagation of the logger before the first recorder began."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last: dict[str, deque[Decision]] = {}
        self._thread = 0

    def begin(self, thread: int) -> None:
        """Start recording what a thread logs."""
        logger = logging.getLogger(LOGGER)
        if not self._running:
            Decisions._before = logger.level, logger.propagate
        self._thread = thread
        self._running.append(self)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self)

    def end(self) -> None:
        """Stop recording, and restore the logger after the last recorder. Idempotent."""
        if self not in self._running:
            return
        self._running.remove(self)
        logger = logging.getLogger(LOGGER)
        logger.removeHandler(self)
        if not self._running:
            level, logger.propagate = Decisions._before
            logger.setLevel(level)

    def of(self, service: ServiceKey) -> Sequence[Decision]:
        """Return the last ones of a Service, the oldest first."""
        return tuple(self._last.get(str(service), ()))

    def emit(self, record: logging.LogRecord) -> None:
        """Part of Handler."""
        if record.thread != self._thread:
            return
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
            )
        )
