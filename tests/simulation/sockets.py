"""The data plane's sockets: system calls on streams and datagram sockets, like ``_socket``.

Source: CPython's Modules/socketmodule.c for arguments and results; ``streams`` and ``datagrams``
simulate the kernel's behaviour.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
from typing import TYPE_CHECKING, Any

from userspace_proxy.kernel.socket_options import IP_RECVERR, IPV6_RECVERR

from .addresses import NODE_IP, ipv6_of
from .datagrams import DatagramSocket
from .streams import CLOSED, CONNECTING, LISTENING, NEW, OPEN, Stream

if TYPE_CHECKING:
    from .kernel import Kernel

Address = tuple[str, int]


def core_of(sock: Any) -> Any:
    """Return the simulated object behind a socket of the data plane, typed as a real socket."""
    return sock.core


_SO_MEMINFO = 55
# The options of each family: linux/in.h, linux/in6.h. The other family's option has no effect here.
_TTL = (_socket.IPPROTO_IP, 2), (_socket.IPPROTO_IPV6, 16)
_PKTINFO = (_socket.IPPROTO_IP, 8), (_socket.IPPROTO_IPV6, 49)
_RECVERR = (_socket.IPPROTO_IP, IP_RECVERR), (_socket.IPPROTO_IPV6, IPV6_RECVERR)
_REUSE = (_socket.SOL_SOCKET, _socket.SO_REUSEADDR)
_LINGER = (_socket.SOL_SOCKET, _socket.SO_LINGER)
_INLINE = (_socket.SOL_SOCKET, _socket.SO_OOBINLINE)
_QUICKACK = (_socket.IPPROTO_TCP, _socket.TCP_QUICKACK)
_NODELAY = (_socket.IPPROTO_TCP, _socket.TCP_NODELAY)
# From linux/socket.h, because the module socket lacks it.
_MSG_MORE = 0x8000
# Source: linux/tcp_states.h.
_ESTABLISHED, _CLOSE, _CLOSE_WAIT = 1, 7, 8


class SimulatedSocket:
    """Simulates _socket.socket."""

    __slots__ = ("_fd", "_kernel", "core", "family", "type", "was_watched")

    def __init__(
        self, kernel: Kernel, family: int, kind: int, _proto: int, fileno: int | None
    ) -> None:
        self._kernel = kernel
        self.family = family
        self.type = kind & 0xF
        self.was_watched = False
        """Whether it was in an epoll when it was closed."""
        self.core: Any
        if fileno is not None:
            self._fd = fileno
            self.core = kernel.file_of(fileno)
        else:
            network = kernel.network
            if self.type == _socket.SOCK_STREAM:
                self.core = Stream(network, "proxy")
            else:
                self.core = DatagramSocket(network, "proxy", is_ipv6=self._is_ipv6)
            self._fd = kernel.allocate(self.core)
        kernel.sockets[self._fd] = self

    @property
    def _is_ipv6(self) -> bool:
        return self.family == _socket.AF_INET6

    def _is_of_family(self, address: Address) -> bool:
        """Return whether an address has the socket's family; report a violation if not."""
        is_right = not address[0] or (":" in address[0]) is self._is_ipv6
        if not is_right:
            self._kernel.violate(f"{address} is not of the family of {self.core.name}")
        return is_right

    def _as_reported(self, address: Address) -> Address:
        """Return an address as system calls return it: with two more fields for IPv6."""
        return (*address, 0, 0) if self._is_ipv6 else address  # type: ignore[return-value]

    def fileno(self) -> int:
        return self._fd

    def setblocking(self, _is_blocking: bool) -> None:
        pass

    def close(self) -> None:
        if self._fd < 0:
            if self.was_watched:
                self._kernel.violate(f"{self.core.name} was closed twice")
            return
        self._kernel.enter("close")
        self.was_watched = self.core.item is not None
        self._kernel.release(self._fd)
        self._fd = -1
        self.core.close()

    def check_use(self, call: str) -> None:
        """Report a use after close, even while it is pending; raise OSError once it is done."""
        if self._fd < 0:
            self._kernel.violate(f"{call} on {self.core.name} after its close")
            raise OSError(errno.EBADF, "closed")
        if self._fd in self._kernel.network.closing():
            self._kernel.violate(f"{call} on {self.core.name} while it is being closed")

    def _enter(self, call: str) -> Any:
        kernel = self._kernel
        kernel.enter(call)
        if self._fd < 0 or self._fd in kernel.network.closing():
            self.check_use(call)
        return self.core

    def recv_into(self, buffer: Any) -> int:
        core = self._enter("recv")
        data = core.read(len(buffer)) if isinstance(core, Stream) else core.read()[0]
        count = min(len(data), len(buffer))
        buffer[:count] = data[:count]
        return count

    def recv(self, most: int, flags: int = 0) -> bytes:
        core: Stream = self._enter("recv")
        return core.read(most, is_peek=bool(flags & _socket.MSG_PEEK))

    def send(self, data: Any, flags: int = 0) -> int:
        core = self._enter("send")
        if isinstance(core, Stream):
            return core.write(data, is_held=bool(flags & _MSG_MORE))
        if core.remote is None:
            raise OSError(errno.EDESTADDRREQ, "not connected")
        core.tries += 1
        self._kernel.fault("memory")
        return int(core.write(data, core.remote))

    def sendto(self, data: Any, address: Address) -> int:
        core: DatagramSocket = self._enter("sendto")
        self._kernel.fault("memory")
        return core.write(data, address[:2])

    def sendmsg(self, buffers: Any, ancillary: Any, _flags: int, address: Address) -> int:
        core: DatagramSocket = self._enter("sendmsg")
        payload = b"".join(buffers)
        self._kernel.fault("memory")
        info = ancillary[0][2]
        ip = info[:16] if self._is_ipv6 else info[4:8]
        source_ip = _socket.inet_ntop(self.family, ip)
        return core.write(payload, address[:2], source_ip)

    def recvmsg_into(self, buffers: Any, _room: int) -> tuple[int, Any, int, Address]:
        core: DatagramSocket = self._enter("recvmsg")
        data, source, ancillary = core.read()
        count = min(len(data), len(buffers[0]))
        buffers[0][:count] = data[:count]
        return count, ancillary, 0, self._as_reported(source)

    def recvmsg(self, _room: int, _more: int, flags: int) -> tuple[bytes, Any, int, Any]:
        """Read a message from the error queue; no other use is simulated."""
        core: DatagramSocket = self._enter("recvmsg")
        assert flags & _socket.MSG_ERRQUEUE, "nothing else is simulated"
        return b"", core.read_error(), flags, None

    def bind(self, address: Address) -> None:
        core = self._enter("bind")
        self._is_of_family(address)
        own = ipv6_of(NODE_IP) if self._is_ipv6 else NODE_IP
        self._kernel.network.bind(core, (address[0] or own, address[1]))

    def listen(self, backlog: int) -> None:
        core: Stream = self._enter("listen")
        core.state, core.backlog = LISTENING, backlog
        self._kernel.network.listen(core)
        core.wake(0)

    def _accept(self) -> tuple[int, Address]:
        core: Stream = self._enter("accept")
        self._kernel.fault("descriptors")
        if core.state != LISTENING:
            raise OSError(errno.EINVAL, "not listening")
        if not core.queue:
            raise BlockingIOError(errno.EAGAIN, "no connection waits")
        self._kernel.fault("memory")
        accepted = core.queue.popleft()
        accepted.inline = core.inline
        self._kernel.taken[accepted.peer] = self._kernel.timeline.now
        assert accepted.remote is not None, "the connection has no client"
        self._kernel.watcher.accepts(self, accepted)
        return self._kernel.allocate(accepted), self._as_reported(accepted.remote)

    def connect_ex(self, address: Address) -> int:
        core = self._enter("connect")
        self._is_of_family(address)
        self._kernel.watcher.connects(self, (address[0], address[1]))
        return self._connect(core, (address[0], address[1]))

    def _connect(self, core: Any, address: Address) -> int:
        for what in ("ports", "memory"):
            try:
                self._kernel.fault(what)
            except OSError as exc:
                return exc.errno or errno.EIO
        return self._kernel.network.connect(core, address)

    def shutdown(self, how: int) -> None:
        core: Stream = self._enter("shutdown")
        if core.state == LISTENING:
            core.stop_listening()
        else:
            assert how == _socket.SHUT_WR, "nothing else is simulated"
            core.shut_down()

    def getsockname(self) -> Address:
        address: Address | None = self._enter("getsockname").local
        return self._as_reported(address or ("::" if self._is_ipv6 else "0.0.0.0", 0))

    def getpeername(self) -> Address:
        core = self._enter("getpeername")
        is_gone = isinstance(core, Stream) and core.state in (NEW, CONNECTING, CLOSED)
        if core.remote is None or is_gone:
            raise OSError(errno.ENOTCONN, "not connected")
        address: Address = core.remote
        return self._as_reported(address)

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._kernel.enter("setsockopt")
        if self._fd < 0:
            self.check_use("setsockopt")
        core = self.core
        if (level, option) == _LINGER:
            core.lingers_zero = struct.unpack("ii", value)[0] == 1
        elif (level, option) == _INLINE:
            core.inline = bool(value)
        elif (level, option) == _QUICKACK:
            core.holds_acks = not value
        elif (level, option) == _NODELAY and value:
            core.send_at_once()
        elif (level, option) == _TTL[self._is_ipv6]:
            core.hops = value
        elif (level, option) == _REUSE and isinstance(core, DatagramSocket):
            core.shares_port = bool(value)
        elif (level, option) == _PKTINFO[self._is_ipv6]:
            core.reports_destination = True
        elif (level, option) == _RECVERR[self._is_ipv6]:
            core.keeps_errors = bool(value)

    def getsockopt(self, level: int, option: int, length: int = 0) -> Any:
        core = self._enter("getsockopt")
        if level == _socket.SOL_SOCKET and option == _socket.SO_ERROR:
            return core.take_error()
        if level == _socket.SOL_SOCKET and option == _SO_MEMINFO:
            if isinstance(core, Stream):
                return struct.pack("=9I", len(core.inbox), *[0] * 4, len(core.outbox), 0, 0, 0)
            return struct.pack("=9I", *[0] * 8, core.dropped)
        if level == _socket.IPPROTO_TCP and option == _socket.TCP_INFO:
            state = _CLOSE_WAIT if core.has_fin else _ESTABLISHED
            now = self._kernel.timeline.now
            times = core.moved_at, core.data_at, core.heard_at
            silent_ms = [int((now - at) * 1000) for at in times]
            state = state if core.state == OPEN else _CLOSE
            return struct.pack("=B43xI4x2I", state, *silent_ms)[:length]
        raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
