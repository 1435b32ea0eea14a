"""Dials endpoints through the API server's port-forward, and relays bytes.

    TcpConnection ◀── a TCP connection on loopback ──▶ relay ◀── PodStream ──▶ API server ──▶ pod

Rule 1: a dial succeeds only after the pod has accepted it, so a pod that is gone or refuses doesn't
affect a client: another endpoint is dialled.
Rule 2: a stream has no half-close. A client's FIN isn't forwarded at once: the answer still
arrives, and once the pod has been silent for a few seconds, both directions are closed.
Rule 3: the client gets a RST if the stream breaks, and a FIN if the pod closes it.
Rule 4: load balancers close idle connections despite TCP keepalives, so streams carry pings.
Rule 5: watches may lose their connections while this machine is suspended, so they are restarted
when it resumes.

The relay here isn't ``dataplane.relay``: a stream is WebSocket frames, perhaps within TLS, not a
socket, and this relay provides the socket that the data plane needs.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Mapping

from userspace_proxy.agent.rounds.tasks import first_of
from userspace_proxy.clocks import Clocks
from userspace_proxy.dataplane import Opened
from userspace_proxy.kernel.socket_options import reset
from userspace_proxy.log_fields import FieldLogger
from userspace_proxy.log_limit import LogLimit
from userspace_proxy.model import SocketAddress
from userspace_proxy.sources.base import Pause, pause
from userspace_proxy.sources.kubernetes.client import ApiClient

from ..port_forward import (
    ForwardTarget,
    PodStream,
    PortForwardError,
    open_stream,
)

_log = FieldLogger("userspace_proxy.agent")

HALF_CLOSED_S = 5.0
"""Seconds of silence from the pod after which a client's FIN closes the connection."""
PING_S = 5.0
"""Seconds between pings on an open stream; load balancers' limits usually start at 20."""

# If the clock advances this much during a pause of PING_S, the machine was suspended; a busy
# machine is late by only a few seconds.
_SLEPT_S = 3 * PING_S
_READ_BYTES = 1 << 16
# The timeout for a connection over loopback, which the kernel completes at once.
_LOOPBACK_S = 5.0


class PortForwarder:
    """Dials endpoints that are pods: a ``Dialer``, which works while :meth:`run` runs.

    Args:
        client: The API server's client, which must be open when the first endpoint is dialled.
        pods: Returns each Service port's current endpoints as pods.
        half_closed_s: See HALF_CLOSED_S.
        unix: Returns Unix time, which advances while this machine is suspended.
        pause: Awaited before each ping.
    """

    def __init__(
        self,
        client: ApiClient,
        pods: Callable[[], Mapping[str, Mapping[SocketAddress, ForwardTarget]]],
        *,
        half_closed_s: float = HALF_CLOSED_S,
        unix: Callable[[], float] = Clocks.time,
        pause: Pause = pause,
    ) -> None:
        self._client = client
        self._pods = pods
        self._half_closed_s = half_closed_s
        self._unix = unix
        self._pause = pause
        self._group: asyncio.TaskGroup | None = None
        self._log_limit = LogLimit()

    async def run(self) -> None:
        """Relay connections until cancelled; cancelling resets them."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                while True:
                    before = self._unix()
                    await self._pause(PING_S)
                    if self._unix() - before > _SLEPT_S:
                        self._client.doubt_watches()
            finally:
                self._group = None

    def dial(
        self, service_port: str, endpoint: SocketAddress, opened: Opened
    ) -> Callable[[], None]:
        pods, group = self._pods().get(service_port, {}), self._group
        # A port that isn't the endpoint's own belongs to a port range, so find the pod by its IP.
        at_ip = (
            own._replace(port=endpoint.port) for at, own in pods.items() if at.ip == endpoint.ip
        )
        pod = pods.get(endpoint) or next(at_ip, None)
        if pod is None or group is None:
            # Fail the dial: the endpoint has just left the Service, or this program is stopping.
            return asyncio.get_running_loop().call_soon(opened, errno.EHOSTUNREACH).cancel
        task = group.create_task(self._carry(pod, opened))

        def cancel() -> None:
            task.cancel()

        return cancel

    async def _carry(self, pod: ForwardTarget, opened: Opened) -> None:
        try:
            stream = await open_stream(self._client, pod)
        except PortForwardError as exc:
            self._note_failure(exc)
            opened(exc.number)
            return
        try:
            try:
                ours, theirs = _loopback_pair()
            except OSError as exc:
                opened(exc.errno or errno.EMFILE)
                return
            opened(theirs)
            await _Relay(stream, ours, self._half_closed_s, self._pause).run()
        finally:
            await stream.close()

    def _note_failure(self, exc: PortForwardError) -> None:
        if self._log_limit.take(asyncio.get_running_loop().time()):
            _log.warning("port-forward failed: %(cause)s", extra={"cause": str(exc)})


class _Relay:
    """One connection, from its first byte until it is closed."""

    def __init__(
        self, stream: PodStream, sock: socket.socket, half_closed_s: float, pause: Pause
    ) -> None:
        self._stream = stream
        self._sock = sock
        self._half_closed_s = half_closed_s
        self._pause = pause
        self._silence = asyncio.timeout(None)

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection(sock=self._sock)
        try:
            async with self._silence:
                await first_of(self._down(writer), self._up(reader), self._keep())
        except (OSError, PortForwardError):
            if not self._silence.expired():
                reset(writer)
        except asyncio.CancelledError:
            reset(writer)
            raise
        finally:
            writer.close()

    async def _up(self, reader: asyncio.StreamReader) -> None:
        """Forward the client's bytes, then start to wait for the pod's silence; never returns."""
        while data := await reader.read(_READ_BYTES):
            await self._stream.send(data)
        self._wait_for_silence()
        await asyncio.Event().wait()

    async def _down(self, writer: asyncio.StreamWriter) -> None:
        """Forward the pod's bytes; return at EOF."""
        while data := await self._stream.receive():
            writer.write(data)
            await writer.drain()
            if self._silence.when() is not None:
                self._wait_for_silence()

    async def _keep(self) -> None:
        """Keep an idle stream open; never returns."""
        while True:
            await self._pause(PING_S)
            await self._stream.ping()

    def _wait_for_silence(self) -> None:
        self._silence.reschedule(asyncio.get_running_loop().time() + self._half_closed_s)


def _loopback_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection, both non-blocking.

    A Unix socket pair wouldn't do, because neither end can send a RST.
    """
    with socket.socket() as listener:
        listener.settimeout(_LOOPBACK_S)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        ours = socket.create_connection(listener.getsockname(), _LOOPBACK_S)
        while True:
            try:
                theirs, peer = listener.accept()
            except OSError:
                ours.close()
                raise
            if peer == ours.getsockname():
                break
            # Reject this connection: another program on this machine connected first.
            theirs.close()
    for sock in (ours, theirs):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
    return ours, theirs
