"""Records connections and flows: a log line at their end, and entries for watchers.

    TcpConnection, UdpFlow ──ConnectionFacts──▶ ConnectionLog ─┬▶ logger: a share of all ends
                                                               └▶ Watch: a live observer

Rule 1: a connection that isn't recorded costs one attribute test at its end.
Rule 2: logging never blocks traffic: queues of lines are bounded, and excess lines are dropped and
counted (``plane.worker_main``, ``cli.log_writer``, ``plane.record_ring``).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection
from typing import Protocol

from ..facts.connection import ConnectionFacts
from ..log_fields import FieldLogger
from ..model import SocketAddress

LOGGER = "userspace_proxy.connections"
_log = FieldLogger(LOGGER)


class Watch(Protocol):
    """An observer of connections: see ``plane.record_ring``."""

    def has_room(
        self, prefixes: Collection[str], client_ip: str, *, is_plain: bool = False
    ) -> bool:
        """Return whether an observer takes the record; without room for it, count it as omitted."""

    def put(self, one: ConnectionFacts, frontend: Callable[[], SocketAddress | None]) -> None:
        """Add a connection's record; ``frontend`` returns the address that the client dialled."""


class ConnectionLog:
    """The log of a random ``share`` of all ends; ``draw`` returns numbers in [0, 1)."""

    def __init__(
        self,
        share: float,
        draw: Callable[[], float] = random.random,
        *,
        watch: Watch | None = None,
    ) -> None:
        self._share = share
        self._draw = draw
        self.watch = watch
        self._logs_next = False

    def takes_next(
        self, prefixes: Collection[str], client_ip: str, *, is_plain: bool = False
    ) -> bool:
        """Decide and return whether to record an end, before the record's fields are collected.

        ``prefixes`` name the Service port. ``is_plain`` means that the first dial succeeded, and
        that the connection or flow ended cleanly.
        """
        self._logs_next = (
            self._share > 0 and self._draw() < self._share and _log.isEnabledFor(logging.INFO)
        )
        return self._logs_next or (
            self.watch is not None and self.watch.has_room(prefixes, client_ip, is_plain=is_plain)
        )

    def is_watched(self, prefixes: Collection[str], client_ip: str) -> bool:
        """Return whether a watcher takes an event before the end; the log omits such events."""
        self._logs_next = False
        return self.watch is not None and self.watch.has_room(prefixes, client_ip)

    def write(self, one: ConnectionFacts, frontend: Callable[[], SocketAddress | None]) -> None:
        """Record an end or an earlier event; call after :meth:`takes_next` or :meth:`is_watched`.

        Args:
            frontend: Returns the address that the client dialled, by a system call.
        """
        if self.watch is not None:
            self.watch.put(one, frontend)
        if self._logs_next:
            dialled = frontend()
            one.frontend = "" if dialled is None else str(dialled)
            _log.info("%(kind)s ended: %(cause)s", extra=one.log_fields())
