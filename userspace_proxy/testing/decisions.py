"""Keeps the last connections of each Service: who dialled, which endpoint answered, how it ended.

The facts are those of the access log; while a recorder runs, that logger passes nothing on to the
program's own log.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..model import ServiceKey

LOGGER = "userspace_proxy.access"
KEPT = 10


@dataclass(frozen=True, slots=True)
class Decision:
    """One connection that has ended."""

    client: str
    endpoint: str
    """Empty if none answered."""
    outcome: str
    """As in the access log: ``complete``, ``reset``, ``unanswered``, ``evicted``."""
    duration_s: float
    received_bytes: int
    sent_bytes: int

    def __str__(self) -> str:
        endpoint = self.endpoint or "no endpoint"
        figures = f"{self.received_bytes} B in, {self.sent_bytes} B out"
        return f"{self.client} → {endpoint}: {self.outcome}, {figures}, {self.duration_s:.3f} s"


class Decisions(logging.Handler):
    """Records the connections of Services that end between :meth:`begin` and :meth:`end`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._last: dict[str, deque[Decision]] = {}
        self._before: tuple[int, bool] | None = None

    def begin(self) -> None:
        """Start recording."""
        logger = logging.getLogger(LOGGER)
        self._before = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self)

    def end(self) -> None:
        """Stop recording, and restore the logger. Idempotent."""
        if self._before is not None:
            logger = logging.getLogger(LOGGER)
            logger.removeHandler(self)
            level, propagate = self._before
            logger.setLevel(level)
            logger.propagate = propagate
            self._before = None

    def of(self, service: ServiceKey) -> Sequence[Decision]:
        """Return the last ones of a Service, the oldest first."""
        return tuple(self._last.get(str(service), ()))

    def emit(self, record: logging.LogRecord) -> None:
        """Part of Handler."""
        fields = record.__dict__
        service = str(fields["service"]).partition(":")[0].partition(" ")[0]
        last = self._last.setdefault(service, deque(maxlen=KEPT))
        last.append(
            Decision(
                fields["client"],
                fields["endpoint"],
                str(record.args[0]) if isinstance(record.args, tuple) else record.getMessage(),
                fields["duration_s"],
                fields["received_bytes"],
                fields["sent_bytes"],
            )
        )
