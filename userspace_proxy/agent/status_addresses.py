"""Opens the addresses of the status servers, and retries those that fail.

Rule 1: a proxy serves without them: any user of a node may have bound such an address before.
Rule 2: an address that isn't available is logged, with the program that uses it, and again when
the cause changes.

Source: kube-proxy tries both of its addresses again every 5 s (cmd/kube-proxy/app/server.go,
serveHealthz and serveMetrics of 1.36).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable

from ..errors import ListenError
from ..kernel.port_holders import who_holds
from ..log_fields import FieldLogger
from ..model import IPFamily, Protocol
from ..status.listening import ListenAt
from ..trouble import Trouble
from .rounds.tasks import pause

_log = FieldLogger("userspace_proxy.agent")

_RETRY_S = 5.0


class _Address:
    def __init__(self, bind: ListenAt, serve: Callable[[ListenAt], Awaitable[object]]) -> None:
        self.bind = bind
        self.serve = serve
        self.cause = ""
        """The error of the last attempt."""
        self.trouble = Trouble[ListenError](
            _log,
            "cannot serve a status address: %(cause)s",
            "status address available: %(address)s",
        )


class StatusAddresses:
    """The addresses of one proxy's status servers.

    Args:
        wanted: Each address, or None, and the function that serves there, which may raise
            ListenError.
    """

    def __init__(
        self, wanted: Iterable[tuple[ListenAt | None, Callable[[ListenAt], Awaitable[object]]]] = ()
    ) -> None:
        self._missing = [_Address(bind, serve) for bind, serve in wanted if bind is not None]

    @property
    def problems(self) -> tuple[ListenError, ...]:
        """Why some aren't open."""
        return tuple(problem for address in self._missing for problem in address.trouble.now)

    async def open(self) -> None:
        """Try to open those that aren't open."""
        for address in list(self._missing):
            try:
                await address.serve(address.bind)
            except ListenError as exc:
                await self._note(address, exc)
            else:
                self._missing.remove(address)
                address.trouble.clear(address=_text(address.bind))

    async def run(self) -> None:
        """Retry until all are open."""
        while self._missing:
            await pause(_RETRY_S)
            await self.open()

    async def _note(self, address: _Address, error: ListenError) -> None:
        if address.cause == str(error):
            return
        address.cause = str(error)
        cause, message = error.__cause__, error.message
        is_taken = isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE
        if is_taken and isinstance(address.bind, tuple):
            host, port = address.bind
            # In a thread: it reads the descriptors of all processes.
            holder = await asyncio.to_thread(who_holds, Protocol.TCP, port, IPFamily.of(host))
            message += f" by {holder}" if holder else ""
        # A copy: the traceback of an error that was raised keeps what its frames refer to.
        address.trouble.set(ListenError(message, hint=error.hint))


def _text(bind: ListenAt) -> str:
    return str(bind.getsockname()) if not isinstance(bind, tuple) else "{}:{}".format(*bind)
