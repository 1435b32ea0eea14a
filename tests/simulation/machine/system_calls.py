"""The system calls of one simulated process, and its sockets."""

from __future__ import annotations

import _socket
import array
import errno
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

from userspace_proxy.kernel.net_admin_proof import SECRET_BYTES
from userspace_proxy.kernel.netlink.sockets import NETLINK_NETFILTER

from ..kernel import MAX_CALLS, Kernel, Runaway, _Pipe
from ..network import Network
from ..sockets import SimulatedSocket
from .files import (
    CONTROL,
    Plain,
    PlainCopy,
    Port,
    Rendezvous,
    RendezvousCopy,
    TcpCopy,
    UdpCopy,
    UnixEnd,
    error,
)

if TYPE_CHECKING:
    from random import Random

    from .machine import Process

_SO_COOKIE, _SO_NETNS_COOKIE, _SO_BINDTOIFINDEX = 57, 71, 62
_INTERFACE_OPTIONS = {
    (_socket.SOL_SOCKET, _socket.SO_REUSEADDR): "may_reuse",
    (_socket.SOL_SOCKET, _socket.SO_REUSEPORT): "is_shared",
    (_socket.SOL_SOCKET, _SO_BINDTOIFINDEX): "is_deaf",
}
"""Socket options that decide which sockets may bind a port, and which get its clients."""


class Died(GeneratorExit):
    """Raised by a system call of a dead process: the code after the call mustn't run.

    As a GeneratorExit, it also ends the clean-up of a coroutine that is garbage-collected later.
    """


class Pidfd:
    """The pidfd of a process: readable after its exit."""

    local = remote = None

    def __init__(self, of: Process, owner: Process) -> None:
        self.of = of
        self.owner = owner
        self.item = None
        self.name = f"pidfd of {of.name}"
        of.pidfds.append(owner)

    @property
    def is_readable(self) -> bool:
        return self.of.is_dead

    def events(self) -> int:
        return 0

    def close(self) -> None:
        self.of.pidfds.remove(self.owner)


class ProcessKernel(Kernel):
    """The system calls of one process."""

    def __init__(self, process: Process, network: Network, rng: Random) -> None:
        super().__init__(network, rng, preemption=0.0, spurious=0.0, pipe_bytes=4096)
        self.process = process
        self.machine = process.machine
        self.violations = process.machine.violations
        self.woken = process.loop.wake
        self.fails: dict[str, int] = {}
        """The system calls that fail now because a resource is short, each with its error."""
        self.spared = 0
        """The number of calls that succeed before one fails."""

    def enter(self, call: str) -> None:
        """Overrides Kernel.enter(): the process may die here."""
        # This is the original, inlined, but doesn't run events first, because none are due.
        self.calls += 1
        if self.calls > MAX_CALLS:
            raise Runaway
        self._random()
        process = self.process
        process.calls += 1
        if process.calls == process.dies_at_call:
            process.die(-9)
        if process.is_dead:
            raise Died

    def lack(self, call: str) -> None:
        """Raise the error of this call if its resource is short."""
        if (number := self.fails.get(call)) is None:
            return
        if self.spared:
            self.spared -= 1
            return
        raise error(number)

    def enter_message(self, call: str) -> None:
        """Begin to send or read messages; the process may die here."""
        process = self.process
        process.messages += 1
        if process.messages == process.dies_at_message:
            self.machine.note(f"{process.name}: dies at message {process.messages} ({call})")
            process.die(-9)
        self.enter(call)

    def violate(self, what: str) -> None:
        self.machine.violate(f"{self.process.name}: {what}")

    def is_writable(self, fd: int) -> bool:
        """Return whether a descriptor is a writable Unix socket, so that a write doesn't block."""
        file = self.files.get(fd)
        return isinstance(file, UnixEnd) and file.is_writable

    def socket(
        self, family: int = 2, kind: int = 1, proto: int = 0, fileno: int | None = None
    ) -> ProcessSocket:
        if fileno is None:
            self.enter("socket")
            self.lack("socket")
            if family == _socket.AF_NETLINK:
                fileno = self.allocate(Plain(self.machine, "netlink socket").copy(self.process))
            elif self.process.kind == CONTROL:
                port = Port(self.machine, is_tcp=kind & 0xF == _socket.SOCK_STREAM)
                fileno = self.allocate(port.copy(self.process))
        return ProcessSocket(self, family, kind, proto, fileno)

    def open_unix(self, end: Any) -> ProcessSocket:
        """Return a socket for an end of a connection, or for a listening socket."""
        return ProcessSocket(self, _socket.AF_UNIX, _socket.SOCK_STREAM, 0, self.allocate(end))

    def open_worker_socket(self, label: str) -> ProcessSocket:
        self.enter("listen")
        self.lack("rendezvous")
        return self.open_unix(Rendezvous(self.machine, label).copy(self.process))

    def connect_to_workers(self, label: str) -> list[ProcessSocket]:
        self.enter("connect")
        found = sorted(self.machine.rendezvous.values(), key=lambda each: each.name)
        return [self._connect(each) for each in found if each.label == label]

    def connect(self, name: str) -> ProcessSocket:
        self.enter("connect")
        found = self.machine.rendezvous.get(name)
        if found is None:
            raise error(errno.ECONNREFUSED)
        return self._connect(found)

    def _connect(self, to: Rendezvous) -> ProcessSocket:
        return self.open_unix(to.connect(self.process, self.machine.speed.room))

    def accept(self, listener: ProcessSocket, most: int) -> list[ProcessSocket]:
        self.enter("accept")
        queue: deque[UnixEnd] = listener.core.shared.queue
        accepted: list[ProcessSocket] = []
        while queue and len(accepted) < most:
            end = queue.popleft()
            end.process = self.process
            end.name = f"{self.process.name}'s end"
            accepted.append(self.open_unix(end))
        return accepted

    def peer(self, sock: ProcessSocket) -> tuple[int, int]:
        return sock.core.was_connected_to.pid, 0

    def close(self, fd: int) -> None:
        self.enter("close")
        file = self.file_of(fd)
        self.release(fd)
        if not isinstance(file, _Pipe):
            file.close()

    def eventfd(self, _value: int, _flags: int) -> int:
        self.enter("eventfd")
        return self.allocate(Plain(self.machine, "eventfd").copy(self.process))

    def eventfd_write(self, fd: int, value: int) -> None:
        self.enter("write")
        self.file_of(fd).shared.count += value

    def eventfd_read(self, fd: int) -> int:
        self.enter("read")
        shared = self.file_of(fd).shared
        if not shared.count:
            raise BlockingIOError(errno.EAGAIN, "no beat")
        count, shared.count = shared.count, 0
        return int(count)

    def pidfd_open(self, pid: int) -> int:
        self.enter("pidfd_open")
        return self.allocate(Pidfd(self.machine.process_of(pid), self.process))

    def getpid(self) -> int:
        return self.process.pid


class ProcessSocket(SimulatedSocket):
    """Simulates socket.socket."""

    __slots__ = ("proto",)

    name_proofs = ()
    """An attribute of kernel.abstract_sockets.VouchedSocket."""
    _kernel: ProcessKernel

    def __init__(
        self, kernel: ProcessKernel, family: int, kind: int, proto: int, fileno: int | None
    ) -> None:
        super().__init__(kernel, family, kind, proto, fileno)
        core = self.core
        self.proto = proto
        if isinstance(core, UnixEnd | RendezvousCopy):
            self.family, self.type = _socket.AF_UNIX, _socket.SOCK_STREAM
        elif isinstance(core, PlainCopy):
            self.family, self.type = _socket.AF_NETLINK, _socket.SOCK_RAW
            self.proto = NETLINK_NETFILTER
        elif isinstance(core, UdpCopy):
            self.type, self.proto = _socket.SOCK_DGRAM, _socket.IPPROTO_UDP
        elif isinstance(core, TcpCopy):
            self.proto = _socket.IPPROTO_TCP
        is_port = isinstance(core, TcpCopy | UdpCopy) and core.local is not None
        if is_port and ":" in core.local[0]:
            self.family = _socket.AF_INET6

    def __enter__(self) -> ProcessSocket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def detach(self) -> int:
        self._kernel.enter("detach")
        fd, self._fd = self._fd, -1
        self._kernel.sockets.pop(fd, None)
        return fd

    def bind(self, address: Any) -> None:
        core = self._enter("bind")
        self._kernel.lack("bind")
        if isinstance(core, TcpCopy | UdpCopy):
            core.shared.bind((address[0], address[1]))
        else:
            super().bind(address)

    def listen(self, backlog: int) -> None:
        core = self._enter("listen")
        self._kernel.lack("listen")
        core.backlog = core.shared.backlog = backlog
        core.shared.listen()

    def _accept(self) -> tuple[int, Any]:
        fd, address = super()._accept()
        kernel = self._kernel
        kernel.machine.accepted(kernel.process, self.core.shared, kernel.file_of(fd).peer)
        return fd, address

    def shutdown(self, how: int) -> None:
        core = self._enter("shutdown")
        if isinstance(core, TcpCopy) and not core.shared.is_listening:
            raise error(errno.ENOTCONN)
        super().shutdown(how)

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        super().setsockopt(level, option, value)
        name = _INTERFACE_OPTIONS.get((level, option))
        if name is not None and isinstance(self.core, TcpCopy | UdpCopy):
            setattr(self.core.shared, name, bool(value))
        if name == "is_deaf":
            self.core.shared.sharers.remove(self.core.shared)

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        if (level, option) == (_socket.SOL_SOCKET, _SO_COOKIE):
            return struct.pack("=Q", self._enter("getsockopt").shared.cookie)
        if (level, option) == (_socket.SOL_SOCKET, _SO_NETNS_COOKIE):
            self._enter("getsockopt")
            return struct.pack("=Q", 1)
        if (level, option) == (_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            return int(self._enter("getsockopt").shared.is_listening)
        return super().getsockopt(level, option, length)

    def getpeername(self) -> Any:
        core = self.core
        if isinstance(core, UnixEnd):
            return core.rendezvous.name.encode() if core.rendezvous else ""
        return super().getpeername()

    def sendmsg(self, buffers: Any, ancillary: Any = (), flags: int = 0, *address: Any) -> int:
        if not isinstance(self.core, UnixEnd):
            return super().sendmsg(buffers, ancillary, flags, *address)
        self._kernel.enter_message("sendmsg")
        core = self._enter("sendmsg")
        files = [self._kernel.file_of(fd) for _, _, rights in ancillary for fd in rights]
        sent: int = core.send(b"".join(map(bytes, buffers)), [file.shared for file in files])
        return sent

    def recvmsg(self, most: int, more: int = 0, flags: int = 0) -> Any:
        if not isinstance(self.core, UnixEnd):
            return super().recvmsg(most, more, flags)
        self._kernel.enter_message("recvmsg")
        core = self._enter("recvmsg")
        data, files = core.receive(most)
        fds = array.array("i")
        for shared in files:
            fds.append(self._kernel.allocate(shared.copy(self._kernel.process)))
            shared.unread_at.remove(core)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds.tobytes())] if files else []
        return data, rights, 0, None

    def recv(self, most: int, flags: int = 0) -> bytes:
        """Receive data that comes without descriptors."""
        if not isinstance(self.core, UnixEnd):
            return super().recv(most, flags)
        data, rights, *_ = self.recvmsg(most)
        assert not rights, "the message contains descriptors"
        return bytes(data)

    def answer(self, challenge: ProcessSocket) -> bytes:
        assert isinstance(challenge.core, PlainCopy), "the challenge isn't a netlink socket"
        self._kernel.enter("bind")
        self.core.secret = b"%0*d" % (SECRET_BYTES, self._kernel.process.pid)
        challenge.core.shared.secret = self.core.secret
        return bytes(self.core.secret)


def is_answered(challenge: ProcessSocket, _connection: ProcessSocket, proof: bytes) -> bool:
    return bool(proof) and challenge.core.shared.secret == proof
