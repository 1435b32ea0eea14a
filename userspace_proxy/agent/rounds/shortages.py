"""Tracks Service ports that can't be served; logs one line for all ports in a common shortage.

listeners of a Service port ─▶ ListenProblems ─┬─ lack a common resource: Shortages, in turn
                                               └─ have a problem of their own: incomplete
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from ...errors import BoundError, ListenError, ShortageError
from ...log_fields import FieldLogger
from ...log_limit import SERVICE_LINES, LogLimit
from ...model import PortKey, ServiceKey
from .listener_shares import ListenerShares
from .served_port import ServedPort

_log = FieldLogger("userspace_proxy.agent")


class Shortages:
    """The Service ports of one proxy that lack a descriptor, memory or a proxy port."""

    def __init__(self) -> None:
        self.shares = ListenerShares()
        self.on_excess: Callable[[ServiceKey, str], None] = lambda _service, _cause: None
        """Called with a Service that lacks listeners because it or its namespace has too many."""
        self.can_share = False
        """Whether a limit of this proxy is reached, so that other ports could give up listeners."""
        self._cause, self._hint = "", ""
        """The cause and hint of the latest shortage."""
        self._keys: set[PortKey] = set()
        self._told: set[ServiceKey] = set()
        """The Services for which ``on_excess`` was called, and that have lacked listeners since."""
        self._log_limit = LogLimit()
        self.lines = LogLimit(SERVICE_LINES)
        """The limit of log lines about Service ports with their own problems."""
        self._served_since = 0
        """The number of Service ports that have opened while others are still waiting."""

    def note(self, key: PortKey, error: ListenError | None, *, now: float) -> ListenError:
        """Queue a Service port for its turn; return the error for the missing resource.

        Logs at most one line a minute; calls ``on_excess`` once for a Service above its share.

        Args:
            error: None if opening wasn't tried, because other ports wait for the same resource.
        """
        if error is not None:
            self.can_share = isinstance(error, BoundError)
            self._cause, self._hint = error.cause, error.hint
        message = error.message if error else f"cannot listen for {key}: {self._cause}"
        cause, hint = self._cause or message, self._hint
        self._keys.add(key)
        self.shares.wait(key)
        excess = self.shares.excess(key) if self.can_share else ""
        if excess:
            message, cause = f"{message}; {excess}", f"{cause}; {excess}"
            hint = f"give it fewer ports, or {hint}"
        lack = ListenError(message, hint=hint)
        if excess and key.name.service not in self._told:
            self._told.add(key.name.service)
            self.on_excess(key.name.service, str(lack))
        if self._log_limit.take(now):
            fields = {"service": str(key), "cause": str(ListenError(cause, hint=hint))}
            _log.warning("%(service)s: cannot open listeners: %(cause)s", extra=fields)
        return lack

    def lacks_nothing(self, key: PortKey) -> None:
        """Record that a port isn't waiting: it is served, was removed, or has its own problem."""
        self.shares.end(key)
        if not self.shares.is_waiting(key.name.service):
            self._told.discard(key.name.service)

    def end(self, key: PortKey, *, served_at: float | None) -> None:
        """Record that a Service port no longer lacks listeners, and log that it is served now.

        One line is logged for all ports of a shortage, and one for each port with its own problem.

        Args:
            served_at: Monotonic seconds when the port opened; None if it was removed.
        """
        if key not in self._keys:
            if served_at is not None and self.lines.take(served_at):
                extra = {"service": str(key)}
                _log.info("%(service)s: Service port is served now", extra=extra)
            return
        self._keys.discard(key)
        self._served_since += served_at is not None
        if not self._keys and self._served_since:
            _log.info("listener shortage has ended", extra={"ports": self._served_since})
            self._served_since = 0


class ListenProblems:
    """The Service ports of one proxy that aren't served on all of their frontends.

    Args:
        shortages: The ports waiting for their turn.
    """

    def __init__(self, shortages: Shortages, clock: Callable[[], float]) -> None:
        self.incomplete: dict[PortKey, ServedPort] = {}
        """The ports with unavailable listeners or node ports, except in a shortage."""
        self._shortages = shortages
        self._clock = clock

    def note(self, served: ServedPort, error: ListenError | None, *, waits: bool) -> None:
        """Record the problem of a Service port, and log it if it is new.

        Args:
            error: The problem, or None; ignored if ``waits``.
            waits: Whether the port waits for its turn to listen, or has given up its listeners.
        """
        key, shortages = served.plan.key, self._shortages
        # The problem remains until :meth:`end` is called: until then, clients are refused.
        served.is_listening_again = error is None and not waits and served.not_listening is not None
        if waits or (error is not None and is_shortage(error)):
            lacks = None if waits else error
            served.not_listening = shortages.note(key, lacks, now=self._clock())
            self.incomplete.pop(key, None)
            return
        shortages.lacks_nothing(key)
        if error is not None:
            is_new = str(error) != str(served.not_listening or "")
            if is_new and shortages.lines.take(self._clock()):
                extra = {"service": served.group.label, "cause": str(error)}
                _log.warning("%(service)s: frontends are not served: %(cause)s", extra=extra)
            # Store a copy: the traceback of a raised error keeps its frames' objects alive.
            served.not_listening = ListenError(error.message, hint=error.hint)
        if served.not_listening is not None:
            self.incomplete[key] = served

    def end(self, served: ServedPort) -> None:
        """Forget a problem once clients are steered to all listeners; its end may be logged."""
        self._shortages.end(served.plan.key, served_at=self._clock())
        served.not_listening, served.is_listening_again = None, False
        self.incomplete.pop(served.plan.key, None)

    def forget(self, key: PortKey) -> None:
        self.incomplete.pop(key, None)
        self._shortages.lacks_nothing(key)
        self._shortages.end(key, served_at=None)


def is_shortage(error: ListenError) -> bool:
    """Return whether an error's cause affects this process, and therefore all its Service ports."""
    cause = error.__cause__
    return isinstance(error, ShortageError) or (
        isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)
    )
