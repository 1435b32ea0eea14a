"""Tracks Service ports that lack a common resource; logs one line for all of them."""

from __future__ import annotations

import errno

from ..errors import ListenError, ShortageError
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..plan import PortKey

_log = FieldLogger("userspace_proxy.agent")


class Shortages:
    """The Service ports of one proxy that lack a descriptor, memory or a proxy port."""

    def __init__(self) -> None:
        self._keys: set[PortKey] = set()
        self._log_limit = LogLimit()
        self._served_again = 0
        """Service ports that are open again while others still lack something."""

    def note(self, key: PortKey, error: ListenError, *, now: float) -> None:
        """Remember a Service port, and log one line a minute for all of them."""
        self._keys.add(key)
        if self._log_limit.take(now):
            fields = {"service": str(key), "cause": str(error)}
            _log.warning("%(service)s: cannot open listeners: %(cause)s", extra=fields)

    def end(self, key: PortKey, *, is_served: bool) -> bool:
        """Note that a Service port lacks nothing; return whether it did.

        The last one logs a line.

        Args:
            is_served: It is open; False: it is gone, or has another problem.
        """
        if key not in self._keys:
            return False
        self._keys.discard(key)
        self._served_again += is_served
        if not self._keys and self._served_again:
            _log.info("Service ports are served again", extra={"services": self._served_again})
            self._served_again = 0
        return True


def is_shortage(error: ListenError) -> bool:
    """Return whether the cause concerns this process, and so all its Service ports."""
    cause = error.__cause__
    return isinstance(error, ShortageError) or (
        isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE)
    )
