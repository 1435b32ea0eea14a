"""Makes the system calls for TCP traffic, on descriptors instead of socket objects.

    Reactor, Direction, TcpConnection … ──descriptor, number──▶ SystemCalls ──▶ kernel
                                                  ▲
                  a result, or a negative errno ──┘

Rule 1: calls on the traffic path return the kernel's errors and don't raise them: most reads end
with EAGAIN, and an exception costs more than the call.
Rule 2: a descriptor that this object has accepted or adopted is closed by :meth:`close` only.
Rule 3: all reads of sockets fill one buffer, which the next read overwrites.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
from typing import Any

from ..kernel.socket_options import set_transparent

IS_COMPILED = False
"""Whether the data plane is compiled; then ``calls.pyx`` replaces this module."""

_BEGUN = 0, errno.EINPROGRESS
_STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class SystemCalls:
    """The sockets, pipes and epoll of one event loop.

    Args:
        buffer_bytes: The maximum number of bytes per read.
    """

    __slots__ = "_epoll", "_socks", "buffer", "buffer_bytes"

    def __init__(self, buffer_bytes: int) -> None:
        self.buffer_bytes = buffer_bytes
        self.buffer = memoryview(bytearray(buffer_bytes))
        """Begins with the bytes of the last read; older bytes may follow."""
        self._epoll = select.epoll()
        self._socks: dict[int, _socket.socket] = {}

    def adopt(self, sock: _socket.socket) -> int:
        """Adopt a non-blocking socket that other code has opened; return its descriptor."""
        fd = sock.fileno()
        self._socks[fd] = sock
        return fd

    def disown(self, fd: int) -> None:
        """Give an adopted socket back to its owner, still open. Idempotent."""
        self._socks.pop(fd, None)

    def socket(self, fd: int) -> _socket.socket:
        """Return a descriptor's socket object, for infrequent calls; don't close it."""
        return self._socks[fd]

    def close(self, fd: int) -> None:
        """Close a socket or one end of a pipe."""
        sock = self._socks.pop(fd, None)
        if sock is None:
            os.close(fd)
        else:
            sock.close()

    def accept(self, listener: int) -> tuple[int, Any]:
        """Accept a client; return its non-blocking descriptor and address, or -errno and None.

        The address is the socket module's tuple: IP address and port come first.
        """
        listening = self._socks[listener]
        try:
            fd, address = listening._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - see listening_sockets
        except OSError as exc:
            return _number(exc), None
        client = _socket.socket(listening.family, _socket.SOCK_STREAM, 0, fd)
        client.setblocking(False)
        self._socks[fd] = client
        return fd, address

    def receive(self, fd: int) -> int:
        """Read into the buffer; return the number of bytes (0 at the end), or a negative errno."""
        try:
            return self._socks[fd].recv_into(self.buffer)
        except OSError as exc:
            return _number(exc)

    def send(self, fd: int, count: int, flags: int) -> int:
        """Send the buffer's first ``count`` bytes; return the number sent, or a negative errno."""
        try:
            return self._socks[fd].send(self.buffer[:count], flags)
        except OSError as exc:
            return _number(exc)

    def send_bytes(self, fd: int, data: memoryview) -> int:
        """Send bytes from outside the buffer; return the number accepted, or a negative errno."""
        try:
            return self._socks[fd].send(data)
        except OSError as exc:
            return _number(exc)

    def read_part(self, start: int, end: int) -> memoryview:
        """Return a copy of a range of the buffer."""
        return memoryview(bytes(self.buffer[start:end]))

    def shut_down(self, fd: int) -> int:
        """Send a FIN after the last byte; return 0, or a negative errno."""
        try:
            self._socks[fd].shutdown(_socket.SHUT_WR)
        except OSError as exc:
            return _number(exc)
        return 0

    def set_option(self, fd: int, level: int, option: int, value: int) -> int:
        """Set an integer option; return 0, or a negative errno."""
        try:
            self._socks[fd].setsockopt(level, option, value)
        except OSError as exc:
            return _number(exc)
        return 0

    def send_acks(self, fd: int) -> None:
        """Undo ``listening_sockets.hold_acks``: send the pending ACK, and later ACKs as usual."""
        self.set_option(fd, _socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 1)

    def open_stream(self, family: int) -> int:
        """Open a non-blocking TCP socket; return its descriptor, or a negative errno."""
        try:
            sock = _socket.socket(family, _STREAM)
        except OSError as exc:
            return _number(exc)
        return self.adopt(sock)

    def open_bound(self, family: int, ip: str, port: int, is_transparent: bool) -> int:
        """Open a bound, non-blocking TCP socket; return its descriptor, or a negative errno.

        With SO_REUSEADDR, one port can serve a connection to each endpoint.

        Args:
            ip: An address of this node, or of another host if ``is_transparent``; empty for any
                address of this node.
        """
        try:
            sock = _socket.socket(family, _STREAM)
        except OSError as exc:
            return _number(exc)
        try:
            if is_transparent:
                set_transparent(sock)
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            sock.bind((ip, port))
        except OSError as exc:
            sock.close()
            return _number(exc)
        fd = sock.fileno()
        self._socks[fd] = sock
        return fd

    def connect(self, fd: int, ip: str, port: int, holds_ack: bool) -> int:
        """Begin to connect a socket; return its descriptor, or close it and return -errno.

        Args:
            holds_ack: Whether to hold back the ACK of the handshake: see ``HeldAcks``.
        """
        sock = self._socks[fd]
        if holds_ack:
            self.set_option(fd, _socket.IPPROTO_TCP, _socket.TCP_QUICKACK, 0)
        number = sock.connect_ex((ip, port))
        if number in _BEGUN:
            return fd
        self.close(fd)
        return -number

    def take_error(self, fd: int) -> int:
        """Return and clear a socket's pending error (SO_ERROR); 0 for none."""
        return self._socks[fd].getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)

    def open_pipe(self, size: int) -> tuple[int, int]:
        """Open a pipe of ``size`` bytes; return its read and write ends, or -errno and -1."""
        try:
            read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            return _number(exc), -1
        try:
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, size)
        except OSError as exc:
            os.close(read_end)
            os.close(write_end)
            return _number(exc), -1
        return read_end, write_end

    def splice(self, source: int, sink: int, count: int) -> int:
        """Move up to ``count`` bytes from or to a pipe; return the number, or a negative errno."""
        try:
            return os.splice(source, sink, count, flags=_SPLICE)
        except OSError as exc:
            return _number(exc)

    def read_pipe(self, fd: int, count: int) -> bytes:
        """Read up to ``count`` bytes from a pipe that isn't empty."""
        return os.read(fd, count)

    def epoll_descriptor(self) -> int:
        """Return the epoll's descriptor, which is readable while events wait."""
        return self._epoll.fileno()

    def watch(self, fd: int, events: int) -> int:
        """Report a descriptor's events, including current events; return 0 or a negative errno."""
        try:
            self._epoll.register(fd, events)
        except OSError as exc:
            return _number(exc)
        return 0

    def change_watch(self, fd: int, events: int) -> None:
        """Change the events of a watched descriptor; current events are reported again."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, most: int) -> list[tuple[int, int]]:
        """Return up to ``most`` descriptors with their events, without blocking."""
        return self._epoll.poll(0, most)

    def close_epoll(self) -> None:
        self._epoll.close()


def _number(exc: OSError) -> int:
    return -(exc.errno or errno.EIO)
