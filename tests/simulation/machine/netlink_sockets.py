"""Simulated netlink sockets: answers, listings in parts, events filtered by classic BPF programs.

    send ──▶ subsystem ──▶ answers, or a listing, of which each recv makes one more part
    another program changes something ──▶ multicast ──▶ filter accepts it ──▶ queue, or it is lost

Source: net/netlink/af_netlink.c, net/core/filter.c.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import socket as _socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import netlink_wire as wire

if TYPE_CHECKING:
    from .netlink_kernel import NetlinkKernel

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_ATTACH_FILTER, _DETACH_FILTER, _SNDBUFFORCE = 26, 27, 32
_INSTRUCTION = struct.Struct("=HBBI")
# The part of a send buffer that the kernel reserves (netlink_sendmsg); net.core.wmem_max.
_OVERHEAD_BYTES, _WMEM_MAX = 32, 212_992
_DESCRIPTORS = itertools.count(10_000)


class Waiting(NamedTuple):
    """A queued datagram."""

    data: bytes
    at: float = 0.0
    """The time from which the datagram can be read."""
    after_call: int = 0
    """The number of the first system call that can read it."""


class Listing:
    """A dump that is being read.

    Args:
        items: Returns the current kinds and bodies of all messages.
        sequence: Returns a number that changes with the listed objects; None to detect no change.
    """

    def __init__(
        self,
        number: int,
        port: int,
        items: Callable[[], Sequence[tuple[int, bytes]]],
        sequence: Callable[[], int] | None,
    ) -> None:
        self._number = number
        self._port = port
        self._items = items
        self._sequence = sequence
        self._next = 0
        self._seen: int | None = None
        self.is_over = False

    def part(self, most: int, *, done_apart: bool) -> bytes:
        """Return the next datagram.

        Args:
            most: The maximum number of messages.
            done_apart: Whether the message that ends the listing is a separate datagram.
        """
        flags = wire.F_MULTI
        if self._sequence is not None:
            now = self._sequence()
            if self._seen not in (None, now):
                flags |= wire.F_DUMP_INTERRUPTED
            self._seen = now
        items = self._items()
        some = items[self._next : self._next + most]
        self._next += len(some)
        data = b"".join(
            wire.message(kind, flags if not index else wire.F_MULTI, self._number, self._port, body)
            for index, (kind, body) in enumerate(some)
        )
        if not some or (self._next >= len(items) and not done_apart):
            self.is_over = True
            data += wire.done(self._number, flags if not some else 0, self._port)
        return data


class NetlinkSocket:
    """Simulates an AF_NETLINK socket, which several copies may share."""

    family = _socket.AF_NETLINK
    type = _socket.SOCK_RAW

    def __init__(self, kernel: NetlinkKernel, protocol: int) -> None:
        self._kernel = kernel
        self.proto = protocol
        self.port = kernel.next_port()
        self.groups: set[int] = set()
        self.listing: Listing | None = None
        self._copies = 1
        self._fd = next(_DESCRIPTORS)
        self._queue: deque[Waiting] = deque()
        self._program: list[tuple[int, int, int, int]] = []
        self._has_lost = False
        self._timeout: float | None = None
        self._send_bytes = kernel.send_buffer_bytes

    def bind(self, _address: tuple[int, int]) -> None:
        pass

    def getsockname(self) -> tuple[int, int]:
        return self.port, 0

    def fileno(self) -> int:
        return self._fd

    def dup(self) -> NetlinkSocket:
        """Return this object, which counts its copies."""
        self._copies += 1
        return self

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def setblocking(self, is_blocking: bool) -> None:
        self._timeout = None if is_blocking else 0.0

    def getsockopt(self, _level: int, option: int) -> int:
        assert option == _socket.SO_SNDBUF
        return self._send_bytes

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._check_open()
        if level == _SOL_NETLINK:
            if option == _ADD_MEMBERSHIP:
                self.groups.add(value)
        elif option == _ATTACH_FILTER:
            count, address = struct.unpack("HP", value)
            packed = ctypes.string_at(address, count * _INSTRUCTION.size)
            self._program = list(_INSTRUCTION.iter_unpack(packed))
        elif option == _DETACH_FILTER:
            self._program = []
        elif option == _SNDBUFFORCE:
            if not self._kernel.is_privileged:
                raise _refusal(errno.EPERM)
            self._send_bytes = 2 * value
        elif option == _socket.SO_SNDBUF:
            self._send_bytes = 2 * min(value, self._kernel.send_buffer_bytes // 2)

    def send(self, data: bytes) -> int:
        self._check_open()
        self._kernel.enter()
        if len(data) > self._send_bytes - _OVERHEAD_BYTES:
            raise _refusal(errno.EMSGSIZE)
        self._kernel.receive(self, data)
        return len(data)

    def recv(self, _size: int, flags: int = 0) -> bytes:
        self._check_open()
        self._kernel.enter()
        if self._has_lost:
            self._has_lost = False
            raise _refusal(errno.ENOBUFS)
        if not self._queue and self.listing is not None:
            self.continue_listing()
        may_wait = self._timeout is None or self._timeout > 0
        if self._timeout is None and flags & _socket.MSG_DONTWAIT:
            may_wait = False
        if not self._is_ready() and may_wait:
            self._wait()
        if not self._is_ready():
            if may_wait:
                raise TimeoutError("timed out")
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        data = self._queue.popleft().data
        if self.listing is not None and not self._queue:
            self.continue_listing()
        return data

    def close(self) -> None:
        """Close one copy; closing the last copy frees what the socket owns, such as tables."""
        if self._fd < 0:
            return
        self._copies -= 1
        if not self._copies:
            self._fd = -1
            self._kernel.forget(self)

    def is_readable(self) -> bool:
        """Return whether epoll would report the socket as readable."""
        return self._has_lost or self._is_ready()

    def take(self) -> bytes:
        """Return the next datagram, which :meth:`is_readable` found; not a system call."""
        return self._queue.popleft().data

    def put(self, data: bytes, *, after_call: int = 0) -> None:
        """Queue a datagram."""
        delay_s = self._kernel.answer_delay()
        self._queue.append(Waiting(data, self._kernel.now() + delay_s, after_call))

    def lose(self) -> None:
        """Make the next read report lost datagrams (ENOBUFS)."""
        self._has_lost = True

    def put_event(self, data: bytes, *, after_call: int) -> None:
        """Queue or lose an event, unless the filter rejects it."""
        if self._program and not run(self._program, data):
            return
        if self._kernel.loses_event():
            self.lose()
            return
        self._queue.append(Waiting(data, 0.0, after_call))

    def begin(self, listing: Listing) -> None:
        """Begin a listing; a socket can have only one in progress."""
        self.listing = listing
        self.continue_listing()

    def continue_listing(self) -> None:
        """Queue one more datagram of the listing."""
        assert self.listing is not None
        self.put(self._kernel.part(self.listing))
        if self.listing.is_over:
            self.listing = None

    def _is_ready(self) -> bool:
        if not self._queue:
            return False
        first = self._queue[0]
        return first.at <= self._kernel.now() and first.after_call <= self._kernel.calls

    def _wait(self) -> None:
        """Advance the time until a datagram can be read or the socket's timeout expires."""
        longest = 3600.0 if self._timeout is None else self._timeout
        until = self._kernel.now() + longest
        if self._queue:
            until = min(until, self._queue[0].at)
        self._kernel.wait_until(until)

    def _check_open(self) -> None:
        if self._fd < 0:
            raise _refusal(errno.EBADF)


def _refusal(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def run(program: Sequence[tuple[int, int, int, int]], data: bytes) -> int:
    """Run a classic BPF program on a datagram; return the number of bytes that it accepts."""
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code in (0x20, 0x28, 0x30):
            width = {0x20: 4, 0x28: 2, 0x30: 1}[code]
            if operand + width > len(data):
                return 0
            accumulator = int.from_bytes(data[operand : operand + width], "big")
        elif code == 0x15:
            at += if_true if accumulator == operand else if_false
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            return operand
        else:
            raise NotImplementedError(f"instruction {code:#x}")
