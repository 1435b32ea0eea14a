"""Moves the bytes of one direction of a TCP connection.

    source ──recv──▶ the reactor's buffer ──send──▶ sink        small messages
                              │ the sink is full
                              └▶ pending: kept here, and reading stops

    source ──splice──▶ pipe ──splice──▶ sink                    bulk, after a read of 64 KiB
                        └▶ the sink is full: bytes stay in the pipe, and reading stops

Rule 1: back-pressure: while bytes are pending nothing is read, so a stalled reader costs one buffer
or pipe besides the kernel's buffers (``bound_buffers``), and TCP's flow control stops the sender.
Rule 2: the end of a direction (FIN) is passed on after its last byte, and closes only that
direction: in many protocols the server answers after the client's FIN.
Rule 3: a short read means that the socket is empty, unless a FIN (EPOLLRDHUP) or urgent data
(EPOLLPRI) was announced: then the socket is read to EAGAIN, because no further edge follows. If
only a FIN was announced, a short read has reached the FIN, and the bytes are sent in one packet
with it, without another read.
Rule 4: the source is spliced only into an empty pipe, so EAGAIN never means a full pipe.
Rule 5: splice never passes an urgent mark: at the mark it returns EAGAIN, or 0 if a FIN follows, or
the error if a RST follows. So 0 or an error may not be the end, and EAGAIN after urgent data may
not mean an empty socket: recv decides (source: tcp_read_sock() and tcp_splice_read() in
net/ipv4/tcp.c).
Rule 6: urgent data is read in line with other bytes (SO_OOBINLINE): the client's socket inherits
the option from the listener; it is set on the endpoint's socket before the second read in a row.
"""

from __future__ import annotations

import _socket
import errno
import os
from dataclasses import dataclass

from . import reactor as epoll
from .calls import SystemCalls
from .descriptors import Descriptors
from .reactor import Handler, Reactor
from .tuning import BULK_BYTES, LAST_TURNS, ROUNDS, SPLICE_ROUNDS

_EMPTY = -errno.EAGAIN
"""The result of a call that found no bytes, or no room."""

# The value from linux/socket.h, which Python's socket module lacks.
_MSG_MORE = 0x8000

_IN, _OUT, _PRI, _ERR = epoll.IN, epoll.OUT, epoll.PRI, epoll.ERR
_IN_AND_OUT = _IN | _OUT
_END = epoll.RDHUP | epoll.HUP | _ERR


# The kernel's limit on unsent bytes in a socket (TCP_NOTSENT_LOWAT). The socket becomes writable
# below half of this limit, so each call can empty a full pipe. With 512 KiB each call moves little,
# and a GB costs twice the CPU time (measured).
_UNSENT_BYTES = 2 * 1024 * 1024


@dataclass(slots=True)
class Seen:
    """The last findings of ``Ageing`` about a connection."""

    moved: int
    """Bytes moved, in both directions together."""
    moving_at: float
    """When a check last found that bytes had moved, in monotonic seconds."""
    unanswered_since: float | None = None
    """When checks began to find the client silent, in monotonic seconds; None if it answers."""
    had_waited: bool | None = None
    """Whether the client had waited before it ended; None until a check finds no new bytes."""


class Relayed(Handler):
    """The interface of ``TcpConnection`` for its directions."""

    __slots__ = "client_fd", "is_closed", "reactor", "speaker", "up"

    reactor: Reactor
    client_fd: int
    is_closed: bool
    speaker: Direction | None
    """The direction that moved bytes last; None before any bytes, and after the end."""
    up: Direction | None
    """From the client to the endpoint; None before an answer, and after the end."""

    @property
    def pipes(self) -> PipePool:
        """The pipes for bulk data."""
        raise NotImplementedError

    def sink_is_full(self, direction: Direction) -> None:
        """Flush a direction once its sink has room again."""

    def room_in(self, fd: int) -> None:
        """Flush the direction that waited for room in a socket's send buffer."""

    def ends(self, direction: Direction) -> None:
        """Record whether another answer is due, before the last bytes of the source are read.

        Called once the source's FIN or RST is announced, if the client sent the last bytes.
        """

    def direction_ended(self, direction: Direction) -> None:
        """Pass on the FIN that was read, the second one by closing both sockets.

        If the direction is broken, reset both sides.
        """

    def abort(self, number: int) -> None:
        """Reset both sides once the bytes sent before the failure have arrived. Idempotent.

        ``number`` is the errno, 0 if it isn't known.
        """


class Direction(Handler):
    """One direction of a connection; calls the connection's methods on errors and at the end.

    It handles the source's events.

    Args:
        source: Descriptor of the socket to read from.
        sink: Descriptor of the socket to write to.
    """

    __slots__ = (
        "_calls",
        "_has_options",
        "_has_urgent",
        "_in_pipe",
        "_is_bulk",
        "bytes_counted",
        "bytes_moved",
        "connection",
        "has_fin",
        "has_nodelay",
        "is_broken",
        "is_ended",
        "is_stalled",
        "is_stuck",
        "is_waiting_turn",
        "pending",
        "pipe",
        "reads_to_empty",
        "seen",
        "sink_fd",
        "source_fd",
        "spliced_error",
        "wakes_other",
    )

    def __init__(self, connection: Relayed, source: int, sink: int) -> None:
        self.connection = connection
        self.source_fd = source
        self.sink_fd = sink
        self.pending: memoryview | None = None
        """Bytes read but not yet written to the sink."""
        self.bytes_moved = 0
        self._calls = connection.reactor.calls
        self.bytes_counted = 0
        """How many of the moved bytes are in the endpoint's counters."""
        self.pipe: Pipe | None = None
        """The pipe that holds bulk data in transit; None without a pipe."""
        self._in_pipe = 0
        """Bytes in the pipe."""
        self._is_bulk = False
        self._has_options = False
        self._has_urgent = False
        self.is_stuck = False
        """Whether bytes, in memory or in the pipe, wait for room in the sink."""
        self.wakes_other = False
        """Whether the other direction has waited for room in this source, which is its sink."""
        self.reads_to_empty = False
        """Whether a short read may leave bytes, because an end or urgent data was announced."""
        self.has_fin = False
        """Whether only the FIN follows the readable bytes."""
        self.is_broken = False
        """Whether the end was a RST or another error: after a FIN, no read reports the error."""
        self.spliced_error = 0
        """The errno that a splice returned, which no read reports again; 0 for none."""
        self.is_ended = False
        """Whether the source's FIN has been read."""
        self.is_waiting_turn = False
        self.has_nodelay = False
        """Whether the sink has TCP_NODELAY; set only towards the endpoint."""
        self.seen: Seen | None = None
        """The last findings of ``Ageing``, kept in one direction; None before the first check."""
        self.is_stalled = False
        """Whether the endpoint acknowledges nothing and was counted as stalled; False in the
        direction to the client."""

    @property
    def source(self) -> _socket.socket:
        """The socket object being read from, for infrequent calls."""
        return self._calls.socket(self.source_fd)

    @property
    def sink(self) -> _socket.socket:
        """The socket object being written to, for infrequent calls."""
        return self._calls.socket(self.sink_fd)

    @property
    def waiting_bytes(self) -> int:
        """The number of bytes that wait for room in the sink, in memory or in the pipe."""
        return self._in_pipe if self.pending is None else len(self.pending)

    def on(self, _fd: int, events: int) -> None:
        if events == _IN or (events == _IN_AND_OUT and not self.wakes_other):
            self.pump()
            return
        connection = self.connection
        if events & _OUT and self.wakes_other:
            connection.room_in(self.source_fd)
            if connection.is_closed:
                return
        if events & _PRI:
            self.expect_urgent()
        if events & _END:
            if connection.speaker is connection.up:
                connection.ends(self)
            is_plain = not events & (_PRI | _ERR) and not self._has_urgent
            # After a RST no FIN follows, so no bytes are held back for it.
            self.has_fin = is_plain and not self.is_broken
            self.reads_to_empty = True
            if events & _ERR:
                self.is_broken = True
                if self.is_ended or self.is_stuck:
                    connection.abort(0)
                    return
            self.pump()
        elif events & (_IN | _PRI):
            self.pump()

    def pump(self) -> None:  # noqa: C901 - a call per read costs time
        """Move bytes until an empty source, a full sink, the end, an error, or ROUNDS reads."""
        if self.is_stuck or self.is_ended or self.is_waiting_turn:
            return
        if self._is_bulk and self._splice(0):
            return
        calls = self._calls
        rounds = ROUNDS
        while True:
            count = calls.receive(self.source_fd)
            if count < 0:
                if count != _EMPTY:
                    self.connection.abort(-count)
                return
            if count == 0:
                self.connection.direction_ended(self)
                return
            is_last = self.has_fin and count < calls.buffer_bytes
            sent = calls.send(self.sink_fd, count, _MSG_MORE if is_last else 0)
            if sent < 0:
                if sent != _EMPTY:
                    self.connection.abort(-sent)
                    return
                sent = 0
            self.bytes_moved += sent
            self.connection.speaker = self
            if sent < count:
                self.pending = calls.read_part(sent, count)
                self._set_options()
                self._wait_for_room()
                return
            if is_last:
                self.connection.direction_ended(self)
                return
            if count >= BULK_BYTES:
                self._is_bulk = True
                self._set_options()
                if self._splice(count):
                    return
            if count < calls.buffer_bytes and not self.reads_to_empty:
                return
            rounds -= 1
            if not rounds:
                self._wait_turn()
                return

    def _set_options(self) -> None:
        """Limit the kernel's unsent queue before a second read, and read urgent data in line."""
        if not self._has_options:
            self._has_options = True
            bound_buffers(self._calls, self.sink_fd)
            self._read_urgent_inline()

    def _splice(self, copied: int) -> bool:
        """Move bulk data through a pipe, after the bytes that were copied in this turn.

        Returns False if the source must be read instead: no pipe is free, or rule 5 applies.
        """
        pipe = self.pipe = self.connection.pipes.take(self.connection.reactor.now)
        if pipe is None:
            return False
        moved = self.bytes_moved
        for _ in range(SPLICE_ROUNDS):
            count = self._calls.splice(self.source_fd, pipe.write_end, PIPE_BYTES)
            if count == _EMPTY:
                # Splice again only if this turn has moved bulk data: for fewer bytes, copying saves
                # a call.
                self._is_bulk = copied + self.bytes_moved - moved >= BULK_BYTES
                self.release()
                return not self._has_urgent
            if count < 0:
                # Release the pipe first: moving the rest may take another pipe, and leak this pipe.
                self.release()
                if self.is_broken:
                    # At an urgent mark, splice returns the error although bytes may follow: read
                    # them first.
                    self.spliced_error = -count
                    return False
                self.connection.abort(-count)
                return True
            if count == 0:
                # Either the source has ended, or a FIN follows an urgent mark: a read decides
                # which.
                self.release()
                return False
            self._in_pipe = count
            if not self._drain_pipe(pipe):
                return True
        self.release()
        self._wait_turn()
        return True

    def _drain_pipe(self, pipe: Pipe) -> bool:
        """Move the pipe's bytes to the sink; return False if the sink is full or gone."""
        while self._in_pipe:
            sent = self._calls.splice(pipe.read_end, self.sink_fd, self._in_pipe)
            if sent == _EMPTY:
                self._wait_for_room()
                return False
            if sent <= 0:
                # No known kernel returns 0; if one did, this loop would never end.
                self.is_stuck = True
                self.connection.abort(-sent)
                return False
            self._in_pipe -= sent
            self.bytes_moved += sent
            self.connection.speaker = self
        return True

    def release(self) -> None:
        """Give the pipe back to the pool; bytes left in the pipe are lost."""
        pipe, self.pipe = self.pipe, None
        if pipe is not None:
            self.connection.pipes.give(pipe, self._in_pipe)
            self._in_pipe = 0

    def give_up_pipe(self) -> None:
        """Copy the pipe's bytes to memory, and return the pipe to the pool. Idempotent."""
        if self.pipe is None or not self._in_pipe:
            return
        waiting = bytearray()
        while self._in_pipe:
            some = self._calls.read_pipe(self.pipe.read_end, self._in_pipe)
            self._in_pipe -= len(some)
            waiting += some
        self.pending = memoryview(waiting)
        self.release()

    def expect_urgent(self) -> None:
        """Read urgent data as ordinary bytes, to EAGAIN because a read stops at the urgent mark.

        The mark itself isn't passed on: telnet and FTP also mark the place in the bytes.
        """
        self.reads_to_empty = self._has_urgent = True
        self.has_fin = False
        self._read_urgent_inline()

    def _read_urgent_inline(self) -> None:
        self._calls.set_option(self.source_fd, _socket.SOL_SOCKET, _socket.SO_OOBINLINE, 1)

    def pump_last(self) -> None:
        """Move as many received bytes as the sink has room for, before a reset.

        No FIN is passed on: once a send has reported the error, reads return a clean end. Urgent
        data is expected, because the event that announces it may not have been delivered.
        """
        self.reads_to_empty = self.is_broken = True
        self.has_fin = False
        self._read_urgent_inline()
        self.flush()
        for _ in range(LAST_TURNS):
            self.is_waiting_turn = False
            self.pump()
            if not self.is_waiting_turn:
                return

    def flush(self) -> None:
        """Send the bytes that wait for room in the sink; once all are sent, continue reading."""
        if self._in_pipe and self.pipe is not None:
            if self._drain_pipe(self.pipe):
                self.is_stuck = False
                self.release()
                self.pump()
            return
        if self.pending is None:
            return
        sent = self._calls.send_bytes(self.sink_fd, self.pending)
        if sent < 0:
            if sent != _EMPTY:
                self.connection.abort(-sent)
            return
        self.bytes_moved += sent
        self.connection.speaker = self
        if sent < len(self.pending):
            self.pending = self.pending[sent:]
            return
        self.pending = None
        self.is_stuck = False
        self.pump()

    def _wait_for_room(self) -> None:
        self.is_stuck = True
        if self.is_broken:
            # The rest of a broken source isn't read: reset now, which gives the sink a deadline for
            # the bytes already read.
            self.connection.abort(0)
        else:
            self.connection.sink_is_full(self)

    def _wait_turn(self) -> None:
        self.is_waiting_turn = True
        self.connection.reactor.run_soon(self._take_turn)

    def _take_turn(self) -> None:
        self.is_waiting_turn = False
        if not self.connection.is_closed:
            self.pump()


def bound_buffers(calls: SystemCalls, sink: int) -> None:
    """Bound the kernel's unsent queue of a sink whose reader may stall; a gone sink is ignored.

        source ──▶ receive buffer ──▶ pipe ──▶ send queue ──▶ sink
                  tcp_rmem[2]        1 MiB    2 MiB unsent   (Linux alone: tcp_wmem[2])

    Rule 1: only a direction that has moved bulk data, or has stalled, is bounded: only its buffers
    have grown, and short connections cost no system call.
    Rule 2: the receive buffer is left to the kernel: locking its size, whatever the size, cost 5 to
    7 % of throughput (measured), and it has grown only if the reader was fast before.
    Rule 3: bytes in flight aren't bounded here, but by the sink's congestion window.
    """
    calls.set_option(sink, _socket.IPPROTO_TCP, _socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)


PIPE_BYTES = 1024 * 1024

# The time after which opening a pipe is retried, because other processes may have closed theirs.
# Until then bytes are copied: a smaller pipe, which the kernel may permit, is slower than copying.
RETRY_S = 10.0

_REFUSED = frozenset({-errno.EPERM, -errno.EMFILE, -errno.ENFILE, -errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class Pipe:
    """The two descriptors of a pipe."""

    read_end: int
    write_end: int


class PipePool:
    """The pipes of one data plane, two descriptors each; with ``max_pipes`` 0 all bytes are copied.

    A direction takes a pipe to move bulk data, and returns it empty when its source is drained, so
    a few pipes serve any number of connections, and an idle connection holds none (with two pipes,
    each connection would need six descriptors). Without a free pipe, bytes are copied; nothing
    waits for a pipe. A pipe with bytes in it is closed, never reused.
    """

    def __init__(self, calls: SystemCalls, descriptors: Descriptors, max_pipes: int) -> None:
        self._calls = calls
        self._descriptors = descriptors
        self._max_pipes = max_pipes
        self._free: list[Pipe] = []
        self._retry_at = 0.0
        self.open_pipes = 0
        """The number of pipes, in use or free."""

    def take(self, now: float) -> Pipe | None:
        """Return a free or new pipe, or None at a limit; an unexpected error raises OSError."""
        if self._free:
            return self._free.pop()
        if (
            self.open_pipes >= self._max_pipes
            or now < self._retry_at
            or not self._descriptors.has_room(2)
        ):
            return None
        read_end, write_end = self._calls.open_pipe(PIPE_BYTES)
        if read_end < 0:
            if read_end not in _REFUSED:
                raise OSError(-read_end, os.strerror(-read_end))
            self._retry_at = now + RETRY_S
            return None
        self.open_pipes += 1
        self._descriptors.take(2)
        return Pipe(read_end, write_end)

    def give(self, pipe: Pipe, left_bytes: int) -> None:
        """Take back a pipe, or close it if bytes are left in it."""
        if left_bytes:
            self._close(pipe)
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Close the free pipes; no more pipes are opened."""
        self._max_pipes = 0
        while self._free:
            self._close(self._free.pop())

    def _close(self, pipe: Pipe) -> None:
        self._calls.close(pipe.read_end)
        self._calls.close(pipe.write_end)
        self.open_pipes -= 1
        self._descriptors.give(2)
