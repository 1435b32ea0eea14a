"""The base class of all backends of a test."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from userspace_proxy.errors import UserspaceProxyError
from userspace_proxy.model import SocketAddress

from .connections import connect_ex
from .http_serving import SeenRequest
from .places import BackendPlace

if TYPE_CHECKING:
    from .sandbox import Pod


class BackendError(UserspaceProxyError):
    """A backend's program doesn't serve, or no port is free for it."""


class FaultControl(NamedTuple):
    """Functions that add and remove the faults of one Service."""

    add: Callable[..., None]
    remove: Callable[..., None]


class Backend:
    """One backend of a Service, which a test can :meth:`stop` and :meth:`start` again.

    The class itself represents a backend that another program serves.
    """

    is_own = False
    """Whether this test runs the backend itself."""
    requests: Sequence[SeenRequest] = ()
    """The last requests, oldest first; empty unless the backend is an HTTP server of the test."""
    is_left = False
    """Whether a TCP backend on loopback still accepted connections after it was closed."""

    def __init__(self, name: str, address: SocketAddress, place: BackendPlace) -> None:
        self.name = name
        self.address = address
        self.is_draining = False
        self._place = place
        self._control: FaultControl | None = None
        self._is_closed = False
        self._reserved: socket.socket | None = None
        """Reserves the port while the backend is stopped; connections to the port are refused."""

    def __repr__(self) -> str:
        state = self.state and f", {self.state}"
        return f"<Backend {self.name} at {self.address}{state}>"

    @property
    def pod(self) -> Pod:
        """The network namespace in which the backend runs; a test may configure it.

        Raises:
            TypeError: Only backends of ``service_network`` have a namespace.
        """
        pod = self._place.pod
        if pod is None:
            raise TypeError(f"{self!r} has no pod: only backends of service_network have one")
        return pod

    def start(self) -> None:
        """Serve again at the same address. Idempotent.

        Raises:
            LookupError: The backend's Service was removed.
            TypeError: Another program serves the backend.
            OSError, BackendError: The address isn't available, or the program doesn't start.
        """
        raise TypeError(f"{self!r} is served by another program: it can't be started here")

    def stop(self) -> None:
        """Refuse new connections and reset open connections. Idempotent.

        The proxy tries other endpoints; if none answers, it resets its client.

        Raises:
            TypeError: Another program serves the backend.
        """
        raise TypeError(f"{self!r} is served by another program: it can't be stopped here")

    def fault(
        self, type_: str, *, stream: str = "downstream", toxicity: float = 1.0, **attributes: int
    ) -> None:
        """Inject a fault into connections to the backend: see :meth:`.EmbeddedProxy.add_fault`."""
        self._controlled().add(
            type_, endpoint=self.address, stream=stream, toxicity=toxicity, **attributes
        )

    def heal(self) -> None:
        """Remove the backend's faults. Idempotent."""
        self._controlled().remove(endpoint=self.address)

    def attach(self, control: FaultControl) -> None:
        """Set the functions that control the faults of the backend's Service."""
        self._control = control

    def _check_open(self) -> None:
        if self._is_closed:
            raise LookupError(f"{self!r} can't be started: its Service was removed")

    def _controlled(self) -> FaultControl:
        assert self._control is not None, "it belongs to a Service"
        return self._control

    def close(self) -> None:
        """Release all resources of the backend, permanently. Idempotent."""
        if self.is_own and not self._is_closed:
            self.stop()
            if self._reserved is not None:
                # Check this now, because another program may get the port later.
                self.is_left = self._accepts()
                self._free()
            self._place.leave()
        self._is_closed = True

    def _accepts(self) -> bool:
        with self._place.open_socket(socket.SOCK_STREAM) as client:
            return connect_ex(client, self.address) == 0

    def _reserve(self) -> None:
        """On loopback, bind the TCP port without listening, so that no other program takes it."""
        if self._place.pod is None:
            with contextlib.suppress(OSError):
                self._reserved = self._place.bind(socket.SOCK_STREAM, self.address)

    def _free(self) -> None:
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            reserved.close()

    @property
    def state(self) -> str:
        """``stopped``, ``draining``, or empty while the backend serves."""
        if not self._is_running():
            return "stopped"
        return "draining" if self.is_draining else ""

    def _is_running(self) -> bool:
        return True
