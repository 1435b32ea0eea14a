"""Clients of which an endpoint ends every connection without a byte, while it answers others.

    A ended ──▶ B answered ──▶ A ended ──▶ B answered ──▶ A ended     two failures in a row, of A
                                  └──▶ A answered: a success, as it ends connections by chance

Rule 1: a connection counts if the endpoint has answered other clients since it ended the one
before of the same client. So what counts depends on the client, not on the time.
Rule 2: clients that are answered cost a look at whether any was not.
Rule 3: each process sees some connections of a client, and counts by what it has seen itself.
"""

from __future__ import annotations

from ..model import Failure
from .last_minute import LATELY_S
from .streak import Streak

CLIENTS_MAX = 64
"""Clients that are kept per endpoint: an access rule turns away a few."""


class Exclusions(Streak):
    """The connections of such clients, as failures in a row."""

    __slots__ = ("clients",)

    def __init__(self) -> None:
        super().__init__()
        self.clients: dict[str, float] = {}
        """When the endpoint last ended a connection of each, the latest last."""

    def ended(self, client: str, now: float, failure: Failure, answered_at: float) -> None:
        """Note a connection that the endpoint has ended without a byte.

        Args:
            answered_at: When it last answered a connection, monotonic seconds.
        """
        before = self.clients.pop(client, None)
        if len(self.clients) >= CLIENTS_MAX:
            del self.clients[next(iter(self.clients))]
        self.clients[client] = now
        if before is None or now - before >= LATELY_S:
            return
        if answered_at >= before:
            self.failed(now, failure, client)
        else:
            self.still_fails(now, failure, client)

    def answered(self, client: str, now: float) -> None:
        """Note that the endpoint has answered a client."""
        ended_at = self.clients.pop(client, None)
        if ended_at is not None and now - ended_at < LATELY_S:
            self.succeeded_at = now
