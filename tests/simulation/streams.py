"""One end of a simulated TCP connection: its state, its queues, and the wire to the other end.

    write ──▶ outbox ──delivered, as far as the peer has room──▶ the peer's inbox ──▶ read
              └ FIN after the last byte; a RST after a part of them

The bytes in the outbox haven't been acknowledged. Clients and endpoints call these methods; the
data plane calls system calls (``sockets``), which may be preempted.

Source: net/ipv4/tcp.c, tcp_poll(), tcp_recvmsg_locked(), tcp_sendmsg_locked(), tcp_splice_read(),
tcp_read_sock(), tcp_disconnect(), __tcp_close(); net/ipv4/tcp_input.c, tcp_reset(), tcp_fin().
"""

from __future__ import annotations

import errno
import os
import select
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from .network import Network
    from .polling import Item

IN, OUT, PRI = select.EPOLLIN, select.EPOLLOUT, select.EPOLLPRI
ERR, HUP, RDHUP = select.EPOLLERR, select.EPOLLHUP, select.EPOLLRDHUP
_READABLE = IN | PRI

NEW, LISTENING, CONNECTING, OPEN, CLOSED = range(5)


class Listening(Protocol):
    """A listening socket that clients dial."""

    queue: deque[Any]
    """Connections that wait for accept()."""

    def wake(self, events: int) -> None:
        """Wake the watchers for events that may have happened; 0 for any."""


class Stream:
    """One end of a connection, of a dial, or a listening socket."""

    __slots__ = (
        "_is_moving",
        "accepted_bytes",
        "backlog",
        "data_at",
        "delay_s",
        "error",
        "failed_at",
        "fin_at",
        "fin_delivered",
        "fin_queued",
        "has_fin",
        "heard_at",
        "holds_acks",
        "inbox",
        "inbox_bytes",
        "inline",
        "is_holding",
        "is_orphan",
        "item",
        "lingers_zero",
        "local",
        "mark",
        "moved_at",
        "name",
        "network",
        "nospace",
        "outbox",
        "outbox_bytes",
        "outgoing_mark",
        "peer",
        "queue",
        "received_bytes",
        "remote",
        "reset_queued",
        "shut_in",
        "shut_out",
        "shut_out_at",
        "sleeper",
        "state",
    )

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        """Its name in traces."""
        self.state = NEW
        self.local: tuple[str, int] | None = None
        self.remote: tuple[str, int] | None = None
        self.peer: Stream | None = None
        self.inbox = bytearray()
        self.holds_acks = False
        """Whether it delays each ACK until it sends bytes (TCP_QUICKACK is off)."""
        self.outbox = bytearray()
        self.inbox_bytes = network.inbox_bytes
        self.outbox_bytes = network.outbox_bytes
        self.delay_s = network.delay_s
        self.error = 0
        self.has_fin = self.fin_queued = self.fin_delivered = False
        self.shut_in = self.shut_out = False
        self.is_orphan = self.reset_queued = self._is_moving = False
        self.nospace = False
        """Whether a write has found no room since the last event that announced room."""
        self.mark: int | None = None
        """The position of the urgent byte in the inbox."""
        self.outgoing_mark: int | None = None
        """The position of the urgent byte in the outbox."""
        self.inline = self.lingers_zero = False
        self.is_holding = False
        """Whether written bytes wait for more (MSG_MORE), without the kernel's 200 ms timeout."""
        self.queue: deque[Stream] = deque()
        """Connections that wait for accept()."""
        self.backlog = 0
        self.item: Item | None = None
        """The epoll item that watches it."""
        self.sleeper: Callable[[], None] | None = None
        """Called once at the next event."""
        self.accepted_bytes = 0
        """The number of bytes that were written."""
        self.received_bytes = 0
        """The number of bytes that have arrived."""
        self.moved_at = self.data_at = self.heard_at = network.timeline.now
        self.fin_at: float | None = None
        """The time at which the peer's FIN arrived."""
        self.failed_at: float | None = None
        """The time at which it failed, for example because the peer's RST arrived."""
        self.shut_out_at: float | None = None
        """The time at which its own FIN was queued by shutdown(), not by close()."""

    def events(self) -> int:
        """Return the current poll events."""
        if self.state == LISTENING:
            return IN if self.queue else 0
        events = 0
        both = self.shut_in and self.shut_out
        if both or self.state in (CLOSED, NEW):
            events |= HUP
        if self.shut_in:
            events |= IN | RDHUP
        if self.state != CONNECTING:
            skipped = self.mark == 0 and not self.inline
            if len(self.inbox) > skipped:
                events |= IN
            if self.shut_out or 3 * len(self.outbox) <= 2 * self.outbox_bytes:
                events |= OUT
            else:
                self.nospace = True
            if self.mark is not None:
                events |= PRI
        if self.error:
            events |= ERR
        return events

    def take_error(self) -> int:
        number, self.error = self.error, 0
        return number

    @property
    def is_readable(self) -> bool:
        """Whether a read may return something or raise an error."""
        has_news = self.inbox or self.has_fin or self.error or self.shut_in
        return bool(has_news) or self.state in (CLOSED, NEW)

    def read(self, most: int, *, is_peek: bool = False, is_splice: bool = False) -> bytes:
        """Return available bytes; raise BlockingIOError, or the connection's error."""
        inbox = self.inbox
        if self.mark == 0 and not is_splice and not self.inline and inbox:
            # Only recv with MSG_OOB would return the urgent byte.
            del inbox[0]
            self.mark = None
        if inbox:
            end = min(most, len(inbox))
            if self.mark is not None and (self.mark or is_splice):
                end = min(end, self.mark)
            if end:
                data = bytes(inbox[:end])
                if not is_peek:
                    self._consume(end)
                return data
        if self.has_fin:
            return b""
        if self.error:
            number = self.take_error()
            raise OSError(number, os.strerror(number))
        if self.shut_in:
            return b""
        if self.state in (CLOSED, NEW):
            raise OSError(errno.ENOTCONN, "not connected")
        raise BlockingIOError(errno.EAGAIN, "nothing to read")

    def _consume(self, count: int) -> None:
        had_room = self.inbox_bytes - len(self.inbox)
        del self.inbox[:count]
        if self.mark is not None:
            self.mark = None if self.mark < count else self.mark - count
        if self.peer is not None and had_room < self.inbox_bytes:
            self.peer.move()

    def write(self, data: Any, *, is_urgent: bool = False, is_held: bool = False) -> int:
        """Write as many bytes as there is room for; raise BlockingIOError, or the error."""
        if self.error or self.shut_out:
            number = self.take_error() or errno.EPIPE
            raise OSError(number, os.strerror(number))
        if self.state != OPEN:
            number = errno.EAGAIN if self.state == CONNECTING else errno.EPIPE
            raise OSError(number, os.strerror(number))
        count = min(len(data), self.outbox_bytes - len(self.outbox))
        if count < len(data):
            self.nospace = True
        if count <= 0:
            raise BlockingIOError(errno.EAGAIN, "no room")
        if is_urgent:
            self.outgoing_mark = len(self.outbox) + count - 1
        self.outbox += data[:count]
        self.accepted_bytes += count
        self.moved_at = self.network.timeline.now
        # If the buffer is nearly full, Linux immediately sends the bytes that it accepted.
        self.is_holding = is_held and count == len(data)
        self.move()
        return count

    @property
    def unacknowledged(self) -> int:
        """The value of SIOCOUTQ: a FIN counts as a byte."""
        return len(self.outbox) + (self.fin_queued and not self.fin_delivered)

    def send_at_once(self) -> None:
        """Send the bytes that MSG_MORE has held back."""
        self.is_holding = False
        self.move()

    def shut_down(self) -> None:
        """Send a FIN; reading continues."""
        if self.state != OPEN:
            raise OSError(errno.ENOTCONN, "not connected")
        self.shut_out = True
        self.shut_out_at = self.network.timeline.now
        if not self.fin_queued:
            self.fin_queued = True
            self.send_at_once()
        self.wake(0)

    def stop_listening(self) -> None:
        """Refuse clients from now on, and reset the clients in the queue."""
        for queued in self.queue:
            queued.send_reset()
        self.queue.clear()
        self.state = CLOSED
        self.wake(0)

    def close(self) -> bool:
        """Close the socket; return whether that sends a RST."""
        if self.state == LISTENING:
            self.stop_listening()
        was, self.item = self.state, None
        if was != OPEN:
            self.state = CLOSED
            return False
        is_last_ack = self.has_fin and self.fin_queued and not self.outbox
        if self.inbox or (self.lingers_zero and not is_last_ack):
            self.send_reset()
            return True
        self.is_orphan = True
        self.shut_in = self.shut_out = self.fin_queued = True
        self.send_at_once()
        return False

    def send_reset(self) -> None:
        """Send RST after a part of the unacknowledged bytes."""
        self.item = None
        if self.state != OPEN:
            self.state = CLOSED
            return
        self.state = CLOSED
        self.reset_queued = True
        self.fin_queued = False
        del self.outbox[self.network.draw(len(self.outbox) + 1) :]
        self.move()

    def wake(self, events: int) -> None:
        """Wake the watchers for events that may have happened; 0 for any."""
        if self.item is not None:
            self.item.wake(events)
        if self.sleeper is not None:
            self.sleeper()

    def opened(self, peer: Stream) -> None:
        """Turn the socket into one end of an established connection."""
        self.peer, self.state = peer, OPEN
        self.moved_at = self.network.timeline.now
        self.wake(0)

    def joins(self, listening: Listening) -> None:
        """Complete a dial: the proxy's end waits for accept()."""
        server = Stream(self.network, f"proxy's side of {self.name}")
        server.local, server.remote = self.remote, self.local
        server.opened(self)
        self.opened(server)
        listening.queue.append(server)
        listening.wake(IN)

    def fail(self, number: int) -> None:
        """Fail a dial or a connection with an error."""
        self.error = number
        self.failed_at = self.network.timeline.now
        self.state = CLOSED
        self.shut_in = self.shut_out = True
        self.outbox.clear()
        self.outgoing_mark = None
        self.fin_queued = False
        self.wake(ERR)
        self.wake(0)

    def move(self) -> None:
        """Deliver queued bytes after a short delay if the peer has room for them."""
        peer = self.peer
        if self._is_moving or peer is None:
            return
        has_bytes = self.outbox and not self.is_holding and len(peer.inbox) < peer.inbox_bytes
        has_fin = self.fin_queued and not self.fin_delivered and not self.outbox
        if has_bytes or has_fin or self.reset_queued:
            self._is_moving = True
            self.network.soon(self.delay_s, self._deliver)

    def _deliver(self) -> None:
        self._is_moving = False
        peer = self.peer
        if peer is None or peer.state != OPEN:
            self.reset_queued = False
            return
        if self.outbox and not self._deliver_bytes(peer):
            return
        if self.reset_queued:
            self.reset_queued = False
            peer.receive_reset()
            return
        if self.fin_queued and not self.outbox and not self.fin_delivered:
            self.fin_delivered = True
            peer.receive_fin()
            if self.has_fin:
                self._both_ended()
        self.move()

    def _deliver_bytes(self, peer: Stream) -> bool:
        """Move some bytes; return False if the peer answers with a RST."""
        if peer.is_orphan:
            peer.state = CLOSED
            self.network.soon(self.delay_s, self.receive_reset)
            return False
        count = min(len(self.outbox), peer.inbox_bytes - len(peer.inbox))
        count = min(count, 1 + self.network.draw(self.network.segment_bytes))
        if count <= 0:
            return True
        mark = self.outgoing_mark
        if mark is not None:
            if mark < count:
                peer.mark = len(peer.inbox) + mark
                self.outgoing_mark = None
            else:
                self.outgoing_mark = mark - count
        peer.inbox += self.outbox[:count]
        del self.outbox[:count]
        peer.received_bytes += count
        peer.data_at = peer.heard_at = self.network.timeline.now
        peer.wake(_READABLE)
        if self.nospace and 3 * len(self.outbox) <= 2 * self.outbox_bytes:
            self.nospace = False
            self.wake(OUT)
        return True

    def receive_fin(self) -> None:
        """Record the peer's FIN."""
        self.has_fin = self.shut_in = True
        self.fin_at = self.network.timeline.now
        self.heard_at = self.network.timeline.now
        if self.fin_delivered:
            self._both_ended()
        else:
            self.wake(0)

    def _both_ended(self) -> None:
        self.state = CLOSED
        self.shut_in = self.shut_out = True
        self.wake(0)

    def receive_reset(self) -> None:
        """Handle the peer's RST."""
        if self.state == OPEN:
            is_close_wait = self.has_fin and not self.fin_queued
            self.fail(errno.EPIPE if is_close_wait else errno.ECONNRESET)
