"""The simulated kernel of the node: descriptors, epoll, pipes and exhausted resources.

Rule 1: a descriptor has the lowest free number, as in Linux, so a stale number refers to another
file. Numbers are above those of real descriptors.
Rule 2: other events may occur before a system call of the data plane (``enter``).
Rule 3: bugs of a program are violations: using or closing a closed descriptor, and reusing a number
while events of its former file are pending.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from .network import Network
from .polling import Epoll
from .sockets import SimulatedSocket
from .streams import Stream
from .timeline import Timeline

_FIRST = 100_000
_SIOCINQ, _SIOCOUTQ = 0x541B, 0x5411
# The maximum number of system calls of a run, which usually makes a few thousand.
MAX_CALLS = 500_000

FAULTS = {
    "descriptors": errno.EMFILE,
    "memory": errno.ENOBUFS,
    "watches": errno.ENOSPC,
    "ports": errno.EADDRNOTAVAIL,
    "pipes": errno.EPERM,
}
"""Resources that the kernel may run out of, and the error of calls that need them."""


class Runaway(BaseException):
    """A run has made so many system calls that it probably never ends."""


class Watcher:
    """Observes the process's use of its sockets; this base class does nothing."""

    def accepts(self, sock: SimulatedSocket, client: Stream) -> None:
        """Called when a listening socket has returned the node's end of a client's connection."""

    def connects(self, sock: SimulatedSocket, address: tuple[str, int]) -> None:
        """Called before a dial begins."""


class _Pipe:
    """The contents of a pipe, and the number of its open ends."""

    def __init__(self, room: int) -> None:
        self.data = bytearray()
        self.room = room
        self.item = None

    def events(self) -> int:
        return 0


class Kernel:
    """The system calls of one process.

    Args:
        rng: Draws the events during a system call.
        preemption: The fraction of system calls during which other events occur.
        spurious: The fraction of events that are reported twice.
        pipe_bytes: The capacity of a pipe.
    """

    def __init__(
        self,
        network: Network,
        rng: Random,
        *,
        preemption: float,
        spurious: float,
        pipe_bytes: int,
    ) -> None:
        self.network = network
        self.timeline: Timeline = network.timeline
        self._random = rng.random
        self._preemption = preemption
        self._spurious = spurious
        self._pipe_bytes = pipe_bytes
        self.lacking: set[str] = set()
        """The currently exhausted resources: keys of FAULTS."""
        self._is_granting = False
        self.lacked_at = -1.0
        """The time at which a call last failed because a resource was exhausted."""
        self._lacked: set[str] = set()
        self.files: dict[int, Any] = {}
        self.sockets: dict[int, SimulatedSocket] = {}
        """The data plane's sockets by descriptor."""
        self._free: list[int] = []
        self._next = _FIRST
        self.batch: set[int] = set()
        """Descriptors with events that are being handled."""
        self._closed_in_batch: set[int] = set()
        self.violations: list[str] = []
        self.taken: dict[Stream | None, float] = {}
        """Clients' ends of the accepted connections, and when they were accepted."""
        self.calls = 0
        self.epolls: dict[int, Epoll] = {}
        self.woken: Callable[[], None] = lambda: None
        """Called when an epoll may have an event."""
        self.watcher = Watcher()

    def socket(
        self, family: int = 2, kind: int = 1, proto: int = 0, fileno: int | None = None
    ) -> SimulatedSocket:
        if fileno is None:
            self.enter("socket")
            self.fault("descriptors")
            self.fault("memory")
        return SimulatedSocket(self, family, kind, proto, fileno)

    def epoll(self) -> Epoll:
        epoll = Epoll(self, self.woken)
        self.epolls[epoll.fileno()] = epoll
        return epoll

    def pipe2(self, _flags: int) -> tuple[int, int]:
        self.enter("pipe2")
        self.fault("descriptors")
        pipe = _Pipe(self._pipe_bytes)
        return self.allocate(pipe), self.allocate(pipe)

    def fcntl(self, _fd: int, command: int, _value: int) -> int:
        self.enter("fcntl")
        assert command == fcntl.F_SETPIPE_SZ, "no other command is simulated"
        self.fault("pipes")
        return self._pipe_bytes

    def ioctl(self, fd: int, request: int, into: bytearray) -> int:
        self.enter("ioctl")
        assert request in (_SIOCINQ, _SIOCOUTQ), "no other request is simulated"
        core = self.file_of(fd)
        count = core.unacknowledged if request == _SIOCOUTQ else len(core.inbox)
        struct.pack_into("i", into, 0, count)
        return 0

    def close(self, fd: int) -> None:
        """Close one end of a pipe; closing another file is a violation."""
        self.enter("close")
        if not isinstance(self.file_of(fd), _Pipe):
            self.violate(f"descriptor {fd} of a socket was closed as a pipe's")
        self.release(fd)

    def read(self, fd: int, most: int) -> bytes:
        """Return bytes of a pipe; raise BlockingIOError if it is empty."""
        self.enter("read")
        data = self.file_of(fd).data
        if not data:
            raise BlockingIOError(errno.EAGAIN, "the pipe is empty")
        end = min(len(data), most, 1 + self.network.draw(most))
        taken = bytes(data[:end])
        del data[:end]
        return taken

    def splice(self, source: int, sink: int, most: int, *, flags: int) -> int:
        self.enter("splice")
        assert flags & os.SPLICE_F_NONBLOCK, "the call would block"
        left, right = self.file_of(source), self.file_of(sink)
        if isinstance(right, _Pipe):
            room = right.room - len(right.data)
            if right.data:
                self.violate("a pipe with bytes in it was filled")
            self._check_use(source)
            # Each fragment of a packet occupies a page of the pipe, however small.
            data = left.read(min(most, room, 1 + self.network.draw(2 * room)), is_splice=True)
            right.data += data
            return len(data)
        self._check_use(sink)
        if not left.data:
            self.violate("an empty pipe was spliced to a socket")
        count = right.write(memoryview(bytes(left.data[:most])))
        del left.data[:count]
        return int(count)

    def enter(self, call: str) -> None:
        """Begin a system call of the data plane: other events may occur before it."""
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise Runaway
        if self._random() < self._preemption:
            self.timeline.preempt()

    def draws_spurious(self) -> bool:
        """Return whether an event is reported a second time."""
        return self._random() < self._spurious

    def fault(self, what: str) -> None:
        """Raise the error of a call if the resource that it needs is exhausted."""
        if what in self.lacking and not self._is_granting:
            number = FAULTS[what]
            self.note_lack(what)
            raise OSError(number, os.strerror(number))

    def note_lack(self, what: str) -> None:
        """Record that a call fails because a resource is exhausted."""
        self.lacked_at = self.timeline.now
        self._lacked.add(what)

    def lacked(self, what: str) -> bool:
        """Return whether a call has ever failed because a resource was exhausted."""
        return what in self._lacked

    @contextlib.contextmanager
    def granted(self) -> Iterator[None]:
        """Provide all resources within the block."""
        self._is_granting = True
        try:
            yield
        finally:
            self._is_granting = False

    def violate(self, what: str) -> None:
        """Record a violation."""
        self.network.note(f"VIOLATION: {what}")
        self.violations.append(what)

    def _check_use(self, fd: int) -> None:
        sock = self.sockets.get(fd)
        if sock is not None:
            sock.check_use("splice")

    def allocate(self, file: Any) -> int:
        """Allocate the lowest free descriptor for a file, and return it."""
        fd = heapq.heappop(self._free) if self._free else self._next
        if fd == self._next:
            self._next += 1
        if fd in self._closed_in_batch:
            self.violate(f"descriptor {fd} was used again while its former events were handled")
        self.files[fd] = file
        return fd

    def release(self, fd: int) -> None:
        if self.files.pop(fd, None) is None:
            self.violate(f"descriptor {fd} was closed twice")
            raise OSError(errno.EBADF, "closed")
        self.sockets.pop(fd, None)
        for epoll in self.epolls.values():
            epoll.forget(fd)
        if self.epolls.pop(fd, None) is None and fd in self.batch:
            self._closed_in_batch.add(fd)
        heapq.heappush(self._free, fd)

    def file_of(self, fd: int) -> Any:
        file = self.files.get(fd)
        if file is None:
            self.violate(f"descriptor {fd} was used after its close")
            raise OSError(errno.EBADF, "closed")
        return file

    def is_ready(self, fd: int) -> bool:
        """Return whether a descriptor that an event loop watches can be read."""
        file = self.files.get(fd)
        return file is not None and file.is_readable

    def end_batch(self) -> None:
        """Record that the events of the last poll have been handled."""
        if self.batch or self._closed_in_batch:
            self.batch = set()
            self._closed_in_batch = set()
