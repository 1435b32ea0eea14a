"""The programs of socket_lb.bpf.c with maps that a test fills, attached on a node."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.netns import DEADLINE_S, Net
from tests.node.bpf_hooks import Attached
from userspace_proxy.kernel.bpf import calls
from userspace_proxy.kernel.bpf.ring import Ring
from userspace_proxy.model import SocketAddress
from userspace_proxy.steering.socket_lb import socket_maps
from userspace_proxy.steering.socket_lb.socket_maps import (
    DialCounts,
    DialSettings,
    Ejection,
    EjectionScope,
    FrontendValue,
    RingEvent,
    SlotValue,
)

OBJECT = Path(socket_maps.__file__).with_name("socket_lb.bpf.o")


class Client(NamedTuple):
    """A client for affinity: a network namespace, because all of a pod's sockets are one client."""

    netns: int
    affinity: int


class Pin(NamedTuple):
    """A client's affinity to an endpoint."""

    endpoint: int
    last_ns: int
    """The time of the last use, in nanoseconds of the monotonic clock."""


_PAIR = struct.Struct("=QQ")


class SocketLb(Attached):
    """Attached programs, and typed access to their maps."""

    def __init__(self, cgroup: Path) -> None:
        super().__init__(cgroup, OBJECT)
        self._ring = Ring(self.maps["events"], self.parts.maps["events"].entries)
        self._stack.callback(self._ring.close)
        self._services = 0
        self._numbers = 0
        self.set(DialSettings())

    def lead(
        self,
        frontend: SocketAddress,
        *endpoints: SocketAddress,
        affinity: int = 0,
        timeout_s: int = 60,
        weights: tuple[int, ...] = (),
    ) -> list[int]:
        """Assign new endpoints to a frontend; return their numbers."""
        self._services += 1
        numbers = [self._numbers + 1 + at for at in range(len(endpoints))]
        self._numbers += len(endpoints)
        values = [SlotValue(e, n).pack() for e, n in zip(endpoints, numbers, strict=True)]
        slots = [
            v for v, w in zip(values, weights or [1] * len(values), strict=True) for _ in range(w)
        ]
        for number, value in zip(numbers, values, strict=True):
            self._set("counters", socket_maps.number_key(number), DialCounts().pack())
            self._set("slots", socket_maps.pinned_slot_key(self._services, number), value)
        for index, value in enumerate(slots):
            self._set("slots", socket_maps.slot_key(self._services, index), value)
        key = socket_maps.frontend_key(frontend)
        service = FrontendValue(self._services, len(slots), affinity, timeout_s)
        self._set("frontends4" if len(key) == 8 else "frontends6", key, service.pack())
        return numbers

    def set(self, settings: DialSettings) -> None:
        self._set("settings", socket_maps.SETTINGS_KEY, settings.pack())

    def counts(self, number: int) -> DialCounts:
        value = self._get("counters", socket_maps.number_key(number))
        assert value is not None
        return DialCounts.unpack(value)

    def forget(self, number: int) -> None:
        assert calls.delete(self.maps["counters"], socket_maps.number_key(number))

    def ejection(self, number: int, netns: int = 0) -> Ejection | None:
        """Return an endpoint's ejection for all clients, or for one network namespace's clients."""
        value = self._get("ejected", EjectionScope(number, netns).pack())
        return None if value is None else Ejection.unpack(value)

    def eject(self, number: int, ejection: Ejection, netns: int = 0) -> None:
        self._set("ejected", EjectionScope(number, netns).pack(), ejection.pack())

    def readmit(self, number: int, netns: int) -> None:
        assert calls.delete(self.maps["ejected"], EjectionScope(number, netns).pack())

    def ejections(self) -> dict[EjectionScope, Ejection]:
        found = calls.elements(self.maps["ejected"], self.parts.maps["ejected"])
        both = ((EjectionScope.unpack(key), Ejection.unpack(value)) for key, value in found)
        return {scope: ejection for scope, ejection in both if scope.endpoint}

    def pins(self) -> dict[Client, Pin]:
        found = calls.elements(self.maps["pins"], self.parts.maps["pins"])
        return {Client(*_PAIR.unpack(key)): Pin(*_PAIR.unpack(value)) for key, value in found}

    def pin(self, client: Client, pin: Pin) -> None:
        self._set("pins", _PAIR.pack(*client), _PAIR.pack(*pin))

    def unpin(self, client: Client) -> None:
        assert calls.delete(self.maps["pins"], _PAIR.pack(*client))

    def events(self) -> list[RingEvent]:
        return [RingEvent.unpack(record) for record in self._ring.take()]

    def next_events(self) -> list[RingEvent]:
        """Wait for events, and return them."""
        assert select.select([self.maps["events"]], [], [], DEADLINE_S)[0]
        return self.events()

    def _set(self, table: str, key: bytes, value: bytes) -> None:
        calls.update(self.maps[table], key, value)

    def _get(self, table: str, key: bytes) -> bytes | None:
        return calls.lookup(self.maps[table], key, self.parts.maps[table].value_bytes)


@contextmanager
def serving(node: Net, ip: str, backlog: int = 128) -> Iterator[socket.socket]:
    """Listen on an address of a node, on a port that the kernel chooses."""
    with node.tcp(socket.AF_INET6 if ":" in ip else socket.AF_INET) as server:
        server.bind((ip, 0))
        server.listen(backlog)
        yield server


def address_of(sock: socket.socket) -> SocketAddress:
    return SocketAddress(*sock.getsockname()[:2])


def peer_of(sock: socket.socket) -> SocketAddress:
    return SocketAddress(*sock.getpeername()[:2])
