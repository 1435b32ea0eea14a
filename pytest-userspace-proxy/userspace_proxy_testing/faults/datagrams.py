"""A UDP server on loopback that forwards datagrams to one endpoint, with faults.

Each client has a flow, with its own socket to the endpoint. A flow ends when it is idle, or when
another client's flow replaces it.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from userspace_proxy.model import IPFamily, SocketAddress

from .toxics import DOWNSTREAM, UPSTREAM, Latency, Loss, NamedToxic, Reorder

_HOST = "127.0.0.1"
_DATAGRAM_BYTES_MAX = 65535
# The lifetime of idle flows, as in the data plane and nf_conntrack for flows with traffic in both
# directions.
IDLE_S = 120.0
# The maximum number of flows, each of which takes a descriptor of the control process.
_FLOWS_MAX = 1000
_Send = Callable[[bytes], object]
_Client = tuple[str, int]


class FaultDatagrams:
    """A substitute for one UDP endpoint, in the running event loop.

    Args:
        upstream: The endpoint.
        seed: Makes losses, order and jitter reproducible. A draw depends only on the seed, the
            number of earlier flows, and the number of earlier draws for this flow's direction.
        idle_s: Seconds without a datagram in either direction before a flow ends.
    """

    def __init__(self, upstream: SocketAddress, *, seed: int = 0, idle_s: float = IDLE_S) -> None:
        self.upstream = upstream
        self.toxics: tuple[NamedToxic, ...] = ()
        """The toxics, in the order in which they are applied."""
        self._chance = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._idle_s = idle_s
        self._flows: OrderedDict[_Client, _Flow] = OrderedDict()
        """Flows, the flow that has been idle longest first."""
        self._expiry: asyncio.TimerHandle | None = None
        self._socket = _open(SocketAddress(_HOST, 0))
        self._socket.bind((_HOST, 0))
        self.address = SocketAddress(*self._socket.getsockname()[:2])
        """The address that is dialled instead of the endpoint."""
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def set_toxics(self, toxics: Sequence[NamedToxic]) -> None:
        """Replace the toxics."""
        self.toxics = tuple(toxics)

    def close(self) -> None:
        """Close all sockets. Idempotent."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        if self._expiry is not None:
            self._expiry.cancel()
        while self._flows:
            self._end_first()

    def affect(self, way: _Direction, data: bytes, send: _Send) -> None:
        """Send a datagram at once, later, after the next datagram, or never."""
        toxics = [named for named in self.toxics if named.stream == way.stream]
        hit = [named.toxic for named in toxics if way.chance.random() < named.toxicity]
        delay_s = 0.0
        for toxic in hit:
            if isinstance(toxic, Loss) and way.is_hit(toxic.percent):
                return
            if isinstance(toxic, Reorder) and not way.held and way.is_hit(toxic.percent):
                way.held.append(data)
                return
            if isinstance(toxic, Latency):
                jitter = way.chance.uniform(-toxic.jitter, toxic.jitter)
                delay_s += max(0.0, toxic.latency + jitter) / 1000
        for each in (data, *way.held):
            if delay_s:
                self._loop.call_later(delay_s, send, each)
            else:
                send(each)
        way.held.clear()

    def direction(self, stream: str) -> _Direction:
        """Return one direction of a new flow."""
        return _Direction(stream, random.Random(self._chance.random()))

    def _receive(self) -> None:
        try:
            data, client = self._socket.recvfrom(_DATAGRAM_BYTES_MAX)
        except OSError:
            return
        flow = self._flows.get(client)
        if flow is None:
            if len(self._flows) >= _FLOWS_MAX:
                self._end_first()
            try:
                flow = _Flow(self, lambda data: self._send_to(client, data))
            except OSError:
                # This process may be out of descriptors: the datagram is lost.
                return
            self._flows[client] = flow
        self._use(client)
        flow.send(data)

    def _use(self, client: _Client) -> None:
        """Note that a flow was used just now, and start the timer for idle flows."""
        if client in self._flows:
            self._flows[client].used = self._loop.time()
            self._flows.move_to_end(client)
            if self._expiry is None:
                self._expiry = self._loop.call_later(self._idle_s, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        for flow in list(self._flows.values()):
            left_s = flow.used + self._idle_s - self._loop.time()
            if left_s > 0:
                self._expiry = self._loop.call_later(left_s, self._expire)
                return
            self._end_first()

    def _end_first(self) -> None:
        self._flows.popitem(last=False)[1].close()

    def _send_to(self, client: _Client, data: bytes) -> None:
        self._use(client)
        try:
            self._socket.sendto(data, client)
        except OSError:
            return


@dataclass(slots=True)
class _Direction:
    """One direction of a flow."""

    stream: str
    chance: random.Random
    held: list[bytes] = field(default_factory=list)
    """Datagrams to be sent after the next datagram."""

    def is_hit(self, percent: int) -> bool:
        """Draw whether a fault of this percentage affects the datagram."""
        return self.chance.random() * 100 < percent


class _Flow:
    """One client's datagrams to the endpoint, and the replies."""

    def __init__(self, owner: FaultDatagrams, reply: _Send) -> None:
        self.used = 0.0
        """The event loop's time in seconds at the last datagram."""
        self._owner = owner
        self._reply = reply
        self._up, self._down = map(owner.direction, (UPSTREAM, DOWNSTREAM))
        self._socket = _open(owner.upstream)
        try:
            self._socket.connect(owner.upstream)
        except OSError:
            self._socket.close()
            raise
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def send(self, data: bytes) -> None:
        """Send a client's datagram to the endpoint, subject to the upstream toxics."""
        self._owner.affect(self._up, data, self._send_up)

    def close(self) -> None:
        """Close the flow's socket."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _send_up(self, data: bytes) -> None:
        try:
            self._socket.send(data)
        except OSError:
            # The flow was closed, or the endpoint refused a datagram: refusals aren't passed on.
            return

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_DATAGRAM_BYTES_MAX)
        except OSError:
            return
        self._owner.affect(self._down, data, self._reply)


def _open(to: SocketAddress) -> socket.socket:
    """Return a socket of the address's family."""
    family = socket.AF_INET6 if to.family is IPFamily.IPV6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    return sock
