"""Passes messages and sockets between the event loops of two processes, encoded by ``frames``.

Rule 1: no call blocks. Messages are queued while the other side doesn't read, up to a bound; beyond
the bound, the other side counts as dead, and ``lost`` is called.
Rule 2: messages are sent together, in the next loop iteration: each system call wakes the other
side, which is the largest cost of a message.
Rule 3: sockets arrive in the order of their messages: the kernel never merges the data of a call
with sockets and the data of another call (unix(7)).
Rule 4: a queued message whose socket was closed is dropped: a later message closes the listener,
and has no effect if the other side never received the listener.
Rule 5: a side that sends sockets without a message counts as dead: its sockets would accumulate.
Rule 6: a message that may be large is encoded only when it is sent, so that the queue stays small.
Rule 7: a message that is too large for the other side is dropped and logged, because a rejected
message would make that side exit.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import math
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from ..clocks import Clocks
from ..frames import HEADER, MAX_SOCKETS, make_frame
from ..log_fields import FieldLogger
from ..struct_types import resolve

if TYPE_CHECKING:
    from _typeshed import HasFileno

_log = FieldLogger("userspace_proxy.dataplane")

# The maximum size of all waiting messages. A Service port takes about 300 bytes, so the queue has
# room for the ports of any cluster.
MAX_WAITING_BYTES = 64 * 1024 * 1024
# The assumed size of a message that isn't encoded yet: a closure and a record. The state of its
# Service port is in this process's memory anyway, and at most two messages per Service port wait
# (``pending_changes``), however slow the other side is. The sum of the encoded sizes of all Service
# ports would exceed 64 MiB when a worker starts.
_LATER_BYTES = 300

# The maximum size of a message. A change of a group takes up to 7.5 MiB: see MAX_GROUP_BYTES in
# ``messages``.
MAX_FRAME_BYTES = 8 * 1024 * 1024

# The number of bytes per read: about fifty messages, each taking up to 0.1 ms.
_READ_BYTES = 16 * 1024
# The number of bytes sent per call, unless one message is longer; smaller than the kernel's socket
# buffer.
_BATCH_BYTES = 64 * 1024
# How long the channel reads before the loop continues: a worker that receives 10,000 Service ports
# serves clients in between.
_READ_S = 0.005

_Frame = bytes | memoryview
_Waiting = tuple[_Frame | Callable[[], Any], "Sequence[HasFileno]"]
"""A frame, or a function that returns its message, and the descriptors to send with it."""

In = TypeVar("In")
Out = TypeVar("Out")


class Channel(Generic[In, Out]):
    """One end of a connected Unix stream socket; owns the socket.

    Args:
        reads: The type against which msgspec validates incoming messages.
        receive: Called with each message and its descriptors, which the callee closes.
        lost: Called once: with an empty string if the other side has exited or doesn't read,
            otherwise with the fault of its message.
        max_frame_bytes: A longer incoming frame is malformed.
        read_for: Called after each loop iteration that reads, with its duration in seconds.
        unknown: Called with the fault of each message of another type, which is skipped; None if
            such a message is malformed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        *,
        reads: Any,
        receive: Callable[[In, list[int]], None],
        lost: Callable[[str], None],
        max_waiting_bytes: int = MAX_WAITING_BYTES,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        read_for: Callable[[float], None] | None = None,
        unknown: Callable[[str], None] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        resolve(reads)
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(reads).decode
        self._receive = receive
        self._lost = lost
        self._max_waiting_bytes = max_waiting_bytes
        self._max_frame_bytes = max_frame_bytes
        self._read_for = read_for
        self._unknown = unknown
        self._waiting: deque[_Waiting] = deque()
        self.waiting_bytes = 0
        """The size of the queued messages in bytes; ``_LATER_BYTES`` for one that isn't encoded."""
        self.read_bytes = 0
        """The number of received bytes."""
        self.is_stalled = False
        """Whether the channel was closed because the other side doesn't read."""
        self._arrived = bytearray()
        self._descriptors: deque[int] = deque()
        self._is_closed = False
        self._is_reading = True
        loop.add_reader(sock.fileno(), self._on_readable)

    def send(self, message: Out, *socks: HasFileno) -> None:
        """Queue a message, with sockets or other descriptors; no effect once the channel is closed.

        Sending doesn't close the sockets. If one is closed before it is sent, the message is
        dropped, as is a message that is too large.
        """
        if self._is_closed:
            return
        if frame := self._frame(message, len(socks)):
            self._queue(frame, socks, len(frame))

    def send_later(self, make: Callable[[], Out]) -> None:
        """Queue a message, which ``make`` creates when it is sent; the order is kept."""
        if not self._is_closed:
            self._queue(make, (), _LATER_BYTES)

    def _frame(self, message: Out, sockets: int = 0) -> bytes:
        """Return the frame of a message; log a message that is too large, and return no bytes."""
        body = self._encode(message)
        if len(body) <= MAX_FRAME_BYTES:
            return make_frame(body, sockets)
        extra = {"type": type(message).__name__, "bytes": len(body), "limit_bytes": MAX_FRAME_BYTES}
        _log.error("%(type)s message is too large for a worker's channel, dropping it", extra=extra)
        return b""

    def _queue(
        self, frame: _Frame | Callable[[], Out], socks: Sequence[HasFileno], size: int
    ) -> None:
        self._waiting.append((frame, socks))
        self.waiting_bytes += size
        if len(self._waiting) == 1:
            self._loop.add_writer(self._sock.fileno(), self._flush)
        if self.waiting_bytes > self._max_waiting_bytes:
            self.is_stalled = True
            self._lose()

    def close(self) -> None:
        """Send as many messages as the socket has room for, and close the socket. Idempotent.

        Descriptors that have arrived but weren't delivered are also closed.
        """
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._send_waiting()
        self.stop_reading()
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._waiting.clear()

    def stop_reading(self) -> None:
        """Stop reading, which also stops detecting the other side's exit. Idempotent.

        Descriptors that have arrived but weren't delivered are closed.
        """
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._sock.fileno())
        while self._descriptors:
            os.close(self._descriptors.popleft())

    def _lose(self, malformed: str = "") -> None:
        if not self._is_closed:
            self.close()
            self._lost(malformed)

    def _flush(self) -> None:
        try:
            self._send_waiting()
        except BlockingIOError:
            # The loop calls this method again when there is room.
            return
        except OSError as exc:
            if isinstance(exc, ConnectionError):
                # The other side has exited, but its last messages may be unread: read them first.
                self.read()
            self._lose()
        else:
            self._loop.remove_writer(self._sock.fileno())

    def _send_waiting(self) -> None:
        while batch := self._take_batch():
            frames = [frame for frame, _ in batch]
            data = memoryview(frames[0] if len(frames) == 1 else b"".join(frames))
            rights = array.array("i", [sock.fileno() for _, socks in batch for sock in socks])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else []
            try:
                sent = self._sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._waiting.extendleft(reversed(batch))
                raise
            self.waiting_bytes -= sent
            if sent < len(data):
                # All sockets were sent with the first byte, so the rest has none.
                self._waiting.appendleft((data[sent:], ()))

    def _take_batch(self) -> list[tuple[_Frame, Sequence[HasFileno]]]:
        """Return the messages for the next call; drop messages whose sockets were closed."""
        batch: list[tuple[_Frame, Sequence[HasFileno]]] = []
        size = count = 0
        while self._waiting:
            frame, socks = self._waiting[0]
            if callable(frame):
                frame = self._frame(frame())
                self._waiting[0] = frame, socks
                self.waiting_bytes += len(frame) - _LATER_BYTES
            size += len(frame)
            count += len(socks)
            if batch and (size > _BATCH_BYTES or count > MAX_SOCKETS):
                break
            self._waiting.popleft()
            if any(sock.fileno() < 0 for sock in socks):
                self.waiting_bytes -= len(frame)
            else:
                batch.append((frame, socks))
        return batch

    def read(self) -> None:
        """Deliver everything that has arrived, such as the last messages of a dead process."""
        self._read_until(math.inf)

    def _on_readable(self) -> None:
        began = Clocks.monotonic()
        self._read_until(began + _READ_S)
        if self._read_for is not None:
            self._read_for(Clocks.monotonic() - began)

    def _read_until(self, until: float) -> None:
        while self._is_reading:
            try:
                data, ancillary, _flags, _address = self._sock.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(MAX_SOCKETS * 4), socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            for level, kind, rights in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self._descriptors.extend(array.array("i", rights[: len(rights) // 4 * 4]))
            if not data:
                self._lose()
                return
            self._arrived += data
            self.read_bytes += len(data)
            try:
                self._deliver()
            except ValueError as exc:
                self._lose(str(exc))
                return
            if Clocks.monotonic() >= until:
                return

    def _deliver(self) -> None:
        """Deliver the complete messages, or raise ValueError for malformed data."""
        start = 0
        arrived = self._arrived
        try:
            while len(arrived) - start >= HEADER.size and self._is_reading:
                length, count = HEADER.unpack_from(arrived, start)
                end = start + HEADER.size + length
                if length > self._max_frame_bytes:
                    raise ValueError(f"a frame of {length} bytes")
                if len(arrived) < end:
                    break
                if len(self._descriptors) < count:
                    # Without free descriptors the kernel drops sockets, so too few arrive.
                    raise ValueError("sockets got lost on the way")
                body, start = arrived[start + HEADER.size : end], end
                descriptors = [self._descriptors.popleft() for _ in range(count)]
                self._deliver_one(body, descriptors)
        finally:
            del arrived[:start]
        if len(self._descriptors) > MAX_SOCKETS:
            raise ValueError("sockets that no message names")

    def _deliver_one(self, body: bytearray, descriptors: list[int]) -> None:
        try:
            message = self._decode(body)
        except (ValueError, RecursionError) as exc:
            for descriptor in descriptors:
                os.close(descriptor)
            if self._unknown is None or not isinstance(exc, msgspec.ValidationError):
                raise ValueError(str(exc)) from exc
            self._unknown(str(exc))
        else:
            self._receive(message, descriptors)
