"""Open files that processes share: ports with their queues, Unix sockets, rendezvous.

Rule 1: a file lives as long as a process has a descriptor for it, or a message in flight contains a
descriptor. A process's copy has watches of its own, but shares the file's queue.
Rule 2: ports can be bound when Linux permits it, in the cases that the control half relies on.

Source: net/ipv4/inet_connection_sock.c, inet_csk_bind_conflict(), inet_csk_listen_stop();
net/core/sock_reuseport.c, reuseport_stop_listen_sock(), reuseport_detach_sock(), which moves the
last socket of a group to the place of one that leaves, run_bpf_filter();
net/ipv4/udp.c, udp_lib_lport_inuse(); net/unix/af_unix.c, unix_stream_sendmsg(), unix_gc().
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..datagrams import DatagramSocket
from ..network import Address
from ..streams import CLOSED, IN, LISTENING, NEW, Stream

if TYPE_CHECKING:
    from .machine import Machine, Process


CONTROL, WORKER = "control", "worker"
"""The kinds of processes."""


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Shared:
    """A file of which several processes may have copies."""

    def __init__(self, machine: Machine) -> None:
        machine.cookies += 1
        self.cookie = machine.cookies
        self.machine = machine
        self.copies: list[Any] = []
        self.unread_at: list[UnixEnd] = []
        """The ends with unread messages that contain the file, once per message."""

    def copy(self, process: Process) -> Any:
        """Return a new copy for a process."""
        raise NotImplementedError

    def forget(self, copy: Any) -> None:
        """Record that a copy has been closed."""
        self.copies.remove(copy)
        self.release()

    def release(self) -> None:
        """End the file if no process and no unread message refers to it."""
        if not self.copies and not self.unread_at:
            self.end()

    def end(self) -> None:
        """Free the file's resources."""

    @property
    def holders(self) -> set[Process]:
        """The processes that have the file, or an unread message that contains it."""
        return {each.process for each in (*self.copies, *self.unread_at)}


class Plain(Shared):
    """A netlink socket without operations, or an eventfd with its count."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine)
        self.name = name
        self.count = 0
        """The count of an eventfd."""
        self.secret = b""
        """The answer to a challenge."""

    def copy(self, process: Process) -> PlainCopy:
        made = PlainCopy(self, process)
        self.copies.append(made)
        return made


class PlainCopy:
    """A process's copy of a plain file."""

    local = remote = None

    def __init__(self, shared: Plain, process: Process) -> None:
        self.shared = shared
        self.process = process
        self.item = None
        self.name = shared.name

    def events(self) -> int:
        return 0

    def close(self) -> None:
        self.shared.forget(self)


class Sharers:
    """The sockets that accept clients of one port, in the kernel's order."""

    def __init__(self) -> None:
        self.ports: list[Port] = []
        self.by_client = 0
        """The number of sockets among which a client's address chooses; 0 for a random choice."""
        self.left = 0
        """The number of sockets that have left since the last one was added."""

    def add(self, port: Port) -> None:
        if port not in self.ports:
            self.ports.append(port)
            self.left = 0

    def remove(self, port: Port) -> None:
        """Remove a socket, and move the last socket to its index; idempotent."""
        if port in self.ports:
            self.ports[self.ports.index(port)] = self.ports[-1]
            self.ports.pop()
            self.left += 1
        if not self.ports:
            # The kernel drops the program when the group's last socket leaves.
            self.by_client = 0


class Port(Shared):
    """A TCP or UDP socket that is bound to a port, not connected."""

    def __init__(self, machine: Machine, *, is_tcp: bool) -> None:
        super().__init__(machine)
        self.is_tcp = is_tcp
        self.local: Address | None = None
        self.is_listening = False
        self.backlog = 0
        self.may_reuse = self.is_shared = self.is_deaf = False
        """SO_REUSEADDR; SO_REUSEPORT; whether it is bound to an interface that doesn't exist."""
        self.queue: deque[Any] = deque()
        self.known_to: dict[Process, None] = {}
        """Processes that have or had a copy; the first one opened it."""
        self._first: Any = None
        """The first copy; it may be closed."""

    def copy(self, process: Process) -> TcpCopy | UdpCopy:
        made = (TcpCopy if self.is_tcp else UdpCopy)(self, process)
        self._first = self._first or made
        self.known_to[process] = None
        self.copies.append(made)
        return made

    def end(self) -> None:
        self.stop_listening("no process has it")
        self.sharers.remove(self)
        self.machine.ports.pop(self, None)

    def bind(self, address: Address) -> None:
        """Bind the socket; raise OSError if another socket has the port."""
        ports = self.machine.ports
        port = address[1]
        if not port:
            port = next(n for n in range(40000, 41000) if not any(p.port == n for p in ports))
        self._check((address[0], port))
        self.local = (address[0], port)
        ports[self] = None
        if not self.is_tcp:
            self.sharers.add(self)
        for copy in self.copies:
            copy.local = self.local

    @property
    def sharers(self) -> Sharers:
        """The sockets that accept clients of its port."""
        return self.machine.sharers[self.local, self.is_tcp]

    @property
    def port(self) -> int:
        return self.local[1] if self.local else 0

    def _check(self, address: Address) -> None:
        everywhere = "0.0.0.0", address[1]
        others = self.machine.others
        if (address, self.is_tcp) in others or (everywhere, self.is_tcp) in others:
            raise error(errno.EADDRINUSE)
        for other in self.machine.ports:
            if other is self or other.local != address or other.is_tcp != self.is_tcp:
                continue
            if self.is_shared and other.is_shared:
                continue
            both_may = self.may_reuse and other.may_reuse
            if self.is_tcp and both_may and not other.is_listening:
                continue
            raise error(errno.EADDRINUSE)

    def listen(self) -> None:
        """Start to listen; raise OSError if another socket has the port."""
        assert self.local is not None, "the socket isn't bound"
        self._check(self.local)
        self.is_listening = True
        self.sharers.add(self)
        self._note(LISTENING)

    def stop_listening(self, cause: str) -> None:
        """Refuse clients from now on, and reset the clients in the queue."""
        if self.is_listening:
            self.is_listening = False
            self.machine.stopped_listening(self, cause)
            for queued in self.queue:
                queued.send_reset()
            self.queue.clear()
            self.sharers.remove(self)
            self._note(CLOSED)

    def _note(self, state: int) -> None:
        for copy in self.copies:
            copy.state = state
            copy.wake(0)

    def wake(self, events: int) -> None:
        """Wake all copies' watches."""
        for copy in self.copies:
            copy.wake(events)

    def receive(self, payload: bytes, source: Address, at: str, hops: int) -> None:
        self._first.receive(payload, source, at, hops)
        self.wake(IN)


class TcpCopy(Stream):
    """A process's copy of a TCP port."""

    __slots__ = ("process", "shared")

    def __init__(self, shared: Port, process: Process) -> None:
        super().__init__(shared.machine, f"port {shared.port}")
        self.shared, self.process = shared, process
        self.local, self.queue = shared.local, shared.queue
        self.state = LISTENING if shared.is_listening else NEW

    def stop_listening(self) -> None:
        self.shared.stop_listening("shut down")

    def close(self) -> bool:
        self.item = None
        self.shared.forget(self)
        return False


class UdpCopy(DatagramSocket):
    """A process's copy of a UDP port."""

    __slots__ = ("process", "shared", "state")

    def __init__(self, shared: Port, process: Process) -> None:
        super().__init__(shared.machine, f"port {shared.port}")
        self.shared, self.process = shared, process
        self.local, self.inbox = shared.local, shared.queue
        self.state = NEW

    def wake(self, events: int) -> None:
        if self.item is not None:
            self.item.wake(events)

    def read(self) -> tuple[bytes, tuple[str, int], list[tuple[int, int, bytes]]]:
        found = super().read()
        self.shared.machine.received(self.process)
        return found

    def write(self, payload: Any, to: Address, source_ip: str | None = None) -> int:
        if self.shared.is_deaf:
            # The kernel looks up a route through the interface that the socket is bound to.
            raise error(errno.ENODEV)
        return super().write(payload, to, source_ip)

    def close(self) -> bool:
        self.item = None
        self.shared.forget(self)
        return False


Piece = tuple[bytes, "list[Shared]"]


class UnixEnd:
    """One end of a connected Unix stream socket; it belongs to one process."""

    remote = None

    def __init__(self, process: Process, room: int, name: str = "") -> None:
        self.process = process
        self.local = name
        self.name = f"{process.name}'s end"
        self.room = room
        self.item = None
        self.inbox: deque[Piece] = deque()
        self.peer: UnixEnd | None = None
        """The other end; None once that is closed."""
        self.was_connected_to: Process = process
        self.read_bytes = 0
        """All bytes that its process has read."""
        self.rendezvous: Any = None
        self.secret = b""

    def join(self, other: UnixEnd) -> None:
        self.peer, other.peer = other, self
        self.was_connected_to, other.was_connected_to = other.process, self.process

    @property
    def is_readable(self) -> bool:
        return bool(self.inbox) or self.peer is None

    @property
    def is_writable(self) -> bool:
        return self.peer is None or self.peer.left > 0

    @property
    def left(self) -> int:
        """The number of bytes for which the inbox has room."""
        return self.room - sum(len(data) for data, _ in self.inbox)

    def send(self, data: bytes, rights: list[Shared]) -> int:
        """Send as much as the other end has room for, and all descriptors with the first byte."""
        if self.peer is None:
            raise error(errno.EPIPE)
        count = min(len(data), self.peer.left)
        if count <= 0:
            raise BlockingIOError(errno.EAGAIN, "no room")
        for each in rights:
            each.unread_at.append(self.peer)
        self.peer.inbox.append((data[:count], rights))
        self.peer.process.loop.wake()
        return count

    def receive(self, most: int) -> Piece:
        """Return bytes and descriptors; bytes after the first descriptors need another call."""
        if not self.inbox:
            if self.peer is None:
                return b"", []
            raise BlockingIOError(errno.EAGAIN, "nothing to read")
        data, rights = b"", list[Shared]()
        # Bytes before the descriptors are read together with them, but bytes after them aren't.
        while self.inbox and not rights and len(data) < most:
            more, rights = self.inbox.popleft()
            room = most - len(data)
            if len(more) > room:
                self.inbox.appendleft((more[room:], []))
            data += more[:room]
        self.read_bytes += len(data)
        if self.peer is not None:
            self.peer.process.loop.wake()
        return data, rights

    def events(self) -> int:
        return 0

    def close(self) -> None:
        peer, self.peer = self.peer, None
        if peer is None:
            self.process.machine.left_unread(self)
        if peer is not None:
            peer.peer = None
            peer.process.loop.wake()
        while self.inbox:
            for each in self.inbox.popleft()[1]:
                each.unread_at.remove(self)
                each.release()


class Rendezvous(Shared):
    """A listening Unix socket through which the next agent can reach a worker."""

    def __init__(self, machine: Machine, label: str) -> None:
        super().__init__(machine)
        self.label = label
        self.name = f"\0rendezvous/{label}#{self.cookie}"
        self.queue: deque[UnixEnd] = deque()
        machine.rendezvous[self.name] = self

    def copy(self, process: Process) -> RendezvousCopy:
        made = RendezvousCopy(self, process)
        self.copies.append(made)
        return made

    def connect(self, process: Process, room: int) -> UnixEnd:
        """Return a process's end of a new connection, which waits for accept()."""
        ours, theirs = UnixEnd(process, room), UnixEnd(process, room)
        ours.join(theirs)
        ours.rendezvous = self
        self.queue.append(theirs)
        for copy in self.copies:
            copy.process.loop.wake()
        return ours

    def end(self) -> None:
        del self.machine.rendezvous[self.name]
        while self.queue:
            self.queue.popleft().close()


class RendezvousCopy:
    """A process's copy of a rendezvous."""

    remote = None

    def __init__(self, shared: Rendezvous, process: Process) -> None:
        self.shared = shared
        self.process = process
        self.item = None
        self.local = self.name = shared.name

    @property
    def is_readable(self) -> bool:
        return bool(self.shared.queue)

    def events(self) -> int:
        return 0

    def close(self) -> None:
        self.shared.forget(self)


class Watch:
    """Calls back soon after the stream of a client or an endpoint may have changed."""

    def __init__(self, machine: Machine, callback: Callable[[], None]) -> None:
        self._machine = machine
        self._callback = callback
        self._is_due = False

    def wake(self, _events: int) -> None:
        if not self._is_due:
            self._is_due = True
            self._machine.timeline.after(0.0002, self._call)

    def _call(self) -> None:
        self._is_due = False
        self._callback()
