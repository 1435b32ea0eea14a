"""The simulated network: listening sockets, latencies, and the results of dials.

client ──SYN──▶ the data plane's listening socket ──▶ its queue
the data plane ──SYN──▶ a host ──▶ answers, now or late; refuses; is unreachable; is silent
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Container
from random import Random
from typing import Any, Protocol

from .addresses import NODE_IP, NODE_IPS, alike
from .datagrams import DatagramSocket
from .streams import CONNECTING, LISTENING, NEW, Stream
from .timeline import Timeline

Address = tuple[str, int]

EPHEMERAL_PORTS = range(32768, 61000)

ANSWERS, REFUSES, UNREACHABLE, SILENT, LATE, UNROUTABLE = (
    "answers",
    "refuses",
    "unreachable",
    "silent",
    "late",
    "unroutable",
)
"""The reactions of a host to a dial or a datagram."""
ABSENT = "absent"
"""Another reaction to a datagram: no host has the address, so ARP fails."""
_ICMP = {
    REFUSES: ((errno.ECONNREFUSED, 3, 3), (errno.ECONNREFUSED, 1, 4)),
    UNREACHABLE: ((errno.EHOSTUNREACH, 3, 1), (errno.EHOSTUNREACH, 1, 3)),
    UNROUTABLE: ((errno.EHOSTUNREACH, 3, 1), (errno.ENETUNREACH, 1, 0)),
    ABSENT: ((errno.EHOSTUNREACH, 3, 1), (errno.EHOSTUNREACH, 1, 3)),
}
"""The errno, type and code of an ICMP error, and of an ICMPv6 error."""
# The time until ARP fails: three requests, a second apart (arp(7)).
ARP_S = 2.9


class Host(Protocol):
    """An endpoint, from the view of the network."""

    def behaviour(self) -> str:
        """Return the reaction to the next packet."""

    def accept(self, stream: Stream) -> None:
        """Accept a connection."""

    def receive(self, payload: bytes, source: Address) -> None:
        """Receive a datagram."""


class Watcher(Protocol):
    """An observer of datagrams and their sockets, such as ``Flows``."""

    def connected(self, core: DatagramSocket, to: Address) -> None: ...
    def left(self, core: DatagramSocket, payload: bytes, to: Address, source: Address) -> None: ...
    def reached(self, payload: bytes, to: Address, behaviour: str) -> None: ...
    def refused(self, core: DatagramSocket, number: int) -> None: ...
    def arrived(self, core: DatagramSocket | None, payload: bytes, *, is_taken: bool) -> None: ...
    def closed(self, core: DatagramSocket) -> None: ...


class Network:
    """Connects clients, the data plane's node and endpoints."""

    def __init__(
        self,
        timeline: Timeline,
        rng: Random,
        *,
        delay_s: float = 0.001,
        segment_bytes: int = 1500,
        inbox_bytes: int = 4096,
        outbox_bytes: int = 4096,
        inbox_datagrams: int = 64,
        loss: float = 0.0,
    ) -> None:
        self.timeline = timeline
        self._random = rng.random
        self.delay_s = delay_s
        self.segment_bytes = segment_bytes
        self.inbox_bytes = inbox_bytes
        self.outbox_bytes = outbox_bytes
        self.inbox_datagrams = inbox_datagrams
        self.loss = loss
        """The share of datagrams that are lost on the way."""
        self.hosts: dict[Address, Host] = {}
        self.policies: dict[tuple[str, Address], str] = {}
        """Reactions of a host to dials from certain client addresses."""
        self.clients: dict[Address, Callable[[bytes, Address], None]] = {}
        """The functions that receive the datagrams for clients."""
        self._listening: dict[Address, Stream] = {}
        self._bound: dict[Address, list[DatagramSocket]] = {}
        """Bound sockets; several for an address only if they share it and have different hosts."""
        self._connected: dict[tuple[Address, Address], DatagramSocket] = {}
        self._port = EPHEMERAL_PORTS[0]
        self.trace: list[tuple[float, str]] | None = None
        self.closing: Callable[[], Container[Any]] = tuple
        """Descriptors that the reactor is about to close."""
        self.asked_for: dict[str, float] = {}
        """Since when the kernel sends ARP requests for absent hosts."""
        self.watcher: Watcher | None = None
        """Called for each datagram."""

    def note(self, text: str) -> None:
        """Add a line to the trace, if there is one."""
        if self.trace is not None:
            self.trace.append((self.timeline.now, text))

    def draw(self, below: int) -> int:
        """Return a random integer in [0, ``below``)."""
        return int(self._random() * below)

    def soon(self, delay_s: float, callback: Callable[..., object], *args: Any) -> None:
        """Call back after about this time, and occasionally after ten times as long."""
        share = self._random()
        factor = 10.0 if share > 0.97 else 0.2 + share
        self.timeline.after(delay_s * factor, callback, *args)

    def listen(self, stream: Stream) -> None:
        """Route dials to a listening socket."""
        assert stream.local is not None, "the socket isn't bound"
        self._listening[stream.local] = stream

    def dial(self, name: str, source: Address, to: Address) -> Stream:
        """Dial the data plane for a client; return the client's end of the connection."""
        client = Stream(self, name)
        client.local, client.remote = source, to
        client.state, client.inline = CONNECTING, True
        self.soon(client.delay_s, self._arrive_at_node, client)
        return client

    def _arrive_at_node(self, client: Stream) -> None:
        if client.state != CONNECTING:
            return
        assert client.remote is not None, "the client dials no address"
        listening = self._listening.get(client.remote)
        if listening is None or listening.state != LISTENING:
            client.fail(errno.ECONNREFUSED)
            return
        if len(listening.queue) > listening.backlog:
            # A client's kernel would retransmit its SYN.
            self.timeline.after(1.0, self._arrive_at_node, client)
            return
        client.joins(listening)

    def connect(self, core: Any, to: Address) -> int:
        """Dial a host for the data plane; return the result of connect_ex."""
        host = self.hosts.get(to)
        source = core.local[0] if core.local else ""
        behaviour = UNREACHABLE if host is None else host.behaviour()
        behaviour = self.policies.get((source, to), behaviour)
        if core.local is None:
            self._port = self._port + 1 if self._port < EPHEMERAL_PORTS[-1] else EPHEMERAL_PORTS[0]
            core.local = (alike(NODE_IP, to[0]), self._port)
        if behaviour == UNROUTABLE:
            return errno.ENETUNREACH
        core.remote = to
        if isinstance(core, DatagramSocket):
            self._connected[core.local, to] = core
            if self.watcher is not None:
                self.watcher.connected(core, to)
            return 0
        assert core.state == NEW, "a socket dials once"
        core.state = CONNECTING
        core.name = f"proxy's dial of {to[0]} from port {core.local[1]}"
        self.note(f"{core.name}: {behaviour}")
        if behaviour != SILENT:
            delay_s = 0.5 + 2.5 * self._random() if behaviour == LATE else core.delay_s
            self.soon(delay_s, self._arrive_at_host, core, host, behaviour)
        return errno.EINPROGRESS

    def _arrive_at_host(self, core: Stream, host: Host, behaviour: str) -> None:
        if core.state != CONNECTING:
            return
        if behaviour in (REFUSES, UNREACHABLE):
            core.fail(errno.ECONNREFUSED if behaviour == REFUSES else errno.EHOSTUNREACH)
            return
        assert core.remote is not None, "the socket dials no address"
        server = Stream(self, f"endpoint {core.remote[0]}")
        server.local, server.remote, server.inline = core.remote, core.local, True
        server.opened(core)
        core.opened(server)
        host.accept(server)

    def bind(self, core: Any, address: Address) -> None:
        """Bind a socket to an address; raise OSError if another socket has it."""
        core.local = (address[0] or NODE_IP, address[1])
        if isinstance(core, DatagramSocket):
            bound = self._bound.setdefault(core.local, [])
            if bound and not (core.shares_port and all(each.shares_port for each in bound)):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            bound.append(core)

    def forget_datagrams(self, core: DatagramSocket) -> None:
        if core.local is None:
            return
        if self.watcher is not None:
            self.watcher.closed(core)
        bound = self._bound.get(core.local, [])
        if core in bound:
            bound.remove(core)
            if not bound:
                del self._bound[core.local]
        if core.remote is not None and self._connected.get((core.local, core.remote)) is core:
            del self._connected[core.local, core.remote]

    def carry_datagram(
        self, sender: DatagramSocket, payload: bytes, to: Address, source_ip: str | None
    ) -> None:
        """Deliver a datagram of the data plane to a host or a client."""
        assert sender.local is not None, "the sender has no address"
        source = (source_ip or sender.local[0], sender.local[1])
        if self.watcher is not None:
            self.watcher.left(sender, payload, to, source)
        if self._random() < self.loss:
            self.note(f"lost {payload!r} to {to[0]}")
            return
        if sender.remote is None:
            self.soon(self.delay_s, self._reach_client, payload, source, to)
        else:
            self.soon(self.delay_s, self._reach_host, sender, payload, to)

    def _reach_client(self, payload: bytes, source: Address, to: Address) -> None:
        client = self.clients.get(to)
        if client is not None:
            client(payload, source)
        else:
            self._reach_node(payload, source, to, 64)

    def _reach_host(self, sender: DatagramSocket, payload: bytes, to: Address) -> None:
        host = self.hosts.get(to)
        behaviour = UNREACHABLE if host is None else host.behaviour()
        if self.watcher is not None:
            self.watcher.reached(payload, to, behaviour)
        if behaviour in (ANSWERS, LATE):
            assert host is not None, "no host answers"
            assert sender.local is not None, "the sender isn't bound"
            host.receive(payload, sender.local)
        elif behaviour == ABSENT:
            # The kernel reports the error to the source: this node or the client.
            is_own = sender.local is not None and sender.local[0] in NODE_IPS
            if is_own:
                self.timeline.after(ARP_S, self._report, sender, behaviour)
        elif behaviour != SILENT:
            self.soon(self.delay_s, self._report, sender, behaviour)

    def _report(self, sender: DatagramSocket, behaviour: str) -> None:
        number, kind, code = _ICMP[behaviour][sender.is_ipv6]
        if self.watcher is not None:
            self.watcher.refused(sender, number)
        sender.fail(number, kind, code)

    def send_datagram(self, payload: bytes, source: Address, to: Address, hops: int = 64) -> None:
        """Deliver a datagram of a client or a host to the data plane."""
        if self._random() < self.loss:
            self.note(f"lost {payload!r} from {source[0]}")
            return
        self.soon(self.delay_s, self._reach_node, payload, source, to, hops)

    def _reach_node(self, payload: bytes, source: Address, to: Address, hops: int) -> None:
        core = (
            self._connected.get((to, source))
            or self._bound_at(to)
            or self._bound_at(("::" if ":" in to[0] else "0.0.0.0", to[1]))
        )
        if core is not None and core.remote not in (None, source):
            core = None
        if self.watcher is not None:
            is_taken = core is not None and len(core.inbox) < core.room
            self.watcher.arrived(core, payload, is_taken=is_taken)
        if core is not None:
            core.receive(payload, source, to[0], hops)

    def absent_hop(self, ip: str) -> str | None:
        """Return the address that the neighbour table lists if ARP failed for a host, or None."""
        return ip if self.timeline.now - self.asked_for.get(ip, math.inf) >= ARP_S else None

    def _bound_at(self, address: Address) -> DatagramSocket | None:
        bound = self._bound.get(address)
        return bound[0] if bound else None
