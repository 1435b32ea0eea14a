"""The connection log: one line for each connection and flow, or for a share of them, at its end.

Rule 1: a connection that isn't logged costs one attribute test.
Rule 2: a line never waits for its reader. Where lines queue, beyond a bound they are dropped and
counted (``plane.worker_main``, ``cli.log_writer``).
"""

from __future__ import annotations

import enum
import logging
import random
from collections.abc import Callable, Mapping

from ..log_fields import FieldLogger
from ..model import CauseCode, SocketAddress

LOGGER = "userspace_proxy.connections"
_log = FieldLogger(LOGGER)


class EndedBy(enum.StrEnum):
    """Which side ended a connection: for a clean end, the one that sent its FIN first."""

    CLIENT = "client"
    ENDPOINT = "endpoint"
    PROXY = "proxy"


class ConnectionLog:
    """Logs a share of what ends: 1 is everything; ``draw`` returns numbers from 0 to below 1."""

    def __init__(self, share: float, draw: Callable[[], float] = random.random) -> None:
        self._share = share
        self._draw = draw

    def takes_next(self) -> bool:
        """Return whether to log what ends now, before its fields are collected."""
        return self._draw() < self._share and _log.isEnabledFor(logging.INFO)

    def write(
        self,
        what: str,
        *,
        service: str,
        client: SocketAddress,
        frontend: SocketAddress | None,
        endpoint: SocketAddress | None,
        is_preserved: bool,
        dials: int,
        failed: Mapping[SocketAddress, CauseCode] | None,
        waited_s: float,
        received_bytes: int,
        sent_bytes: int,
        duration_s: float,
        ended_by: EndedBy,
        cause: str,
        via: SocketAddress | None = None,
    ) -> None:
        """Write one line about what has ended, a ``connection`` or a ``flow``."""
        _log.info(
            "%(kind)s ended: %(cause)s",
            extra={
                "kind": what,
                "service": service,
                "client": str(client),
                "frontend": "" if frontend is None else str(frontend),
                "via": "" if via is None else str(via),
                "endpoint": "" if endpoint is None else str(endpoint),
                "source": "client" if is_preserved else "node",
                "dials": dials,
                "failed": ", ".join(f"{one} {code}" for one, code in (failed or {}).items()),
                "waited_s": round(waited_s, 6),
                "received_bytes": received_bytes,
                "sent_bytes": sent_bytes,
                "duration_s": round(duration_s, 6),
                "ended_by": ended_by.value,
                "cause": cause,
            },
        )
