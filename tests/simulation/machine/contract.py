"""The real and the simulated kernel, and a program that sends netlink requests to either."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

import pytest

from tests.netns import Net
from userspace_proxy.kernel.netlink import sockets

from . import netlink_wire as wire
from .netlink_kernel import NETFILTER, NetlinkKernel, socket_module
from .netlink_routes import Routes
from .nf_tables import NfTables

_BEGIN, _END = 0x10, 0x11
_READ_BYTES = 1 << 20


class Listed(NamedTuple):
    """A kernel's listing: the kinds and bodies of its messages."""

    items: list[tuple[int, bytes]]
    is_interrupted: bool


class Program:
    """A program with one netlink socket."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        sock.bind((0, 0))
        sock.setsockopt(270, 10, 1)
        sock.settimeout(5.0)
        self._number = 0

    def commit(self, *messages: bytes, with_end: bool = True) -> int:
        """Send one transaction; return its error number, or 0."""
        self._number += 1
        frame = wire.netfilter(0, 10)
        ends = (wire.message(_BEGIN, 1, self._number, 0, frame),)
        last = (wire.message(_END, 1, self._number, 0, frame),) if with_end else ()
        acked = [_numbered(one, self._number, is_last=one is messages[-1]) for one in messages]
        self.sock.send(b"".join((*ends, *acked, *last)))
        code = None
        for request in wire.requests(self.sock.recv(_READ_BYTES)):
            code = -int(struct.unpack_from("=i", request.body)[0])
        self.drain()
        assert code is not None
        return code

    def drain(self) -> list[wire.Request]:
        """Read all queued datagrams; return their messages."""
        found: list[wire.Request] = []
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found += wire.requests(self.sock.recv(_READ_BYTES))
        self.sock.settimeout(5.0)
        return found

    def begin_listing(self, kind: int, body: bytes) -> None:
        self._number += 1
        flags = wire.F_REQUEST | wire.F_DUMP
        self.sock.send(wire.message(kind, flags, self._number, 0, body))

    def read_listing(self, between: Callable[[], object] = lambda: None) -> Listed:
        """Return a listing; ``between`` is called after its first datagram."""
        items: list[tuple[int, bytes]] = []
        is_interrupted = False
        is_first = True
        while True:
            for one in wire.requests(self.sock.recv(_READ_BYTES)):
                is_interrupted |= bool(one.flags & wire.F_DUMP_INTERRUPTED)
                if one.kind == wire.ERROR:
                    raise OSError(-struct.unpack_from("=i", one.body)[0], "refused")
                if one.kind == wire.DONE:
                    return Listed(items, is_interrupted)
                items.append((one.kind, one.body))
            if is_first:
                is_first = False
                between()

    def list(self, kind: int, body: bytes) -> Listed:
        self.begin_listing(kind, body)
        return self.read_listing()

    def ask(self, kind: int, body: bytes, flags: int = 0) -> wire.Request:
        """Send a request; return its single answer."""
        self._number += 1
        self.sock.send(wire.message(kind, wire.F_REQUEST | flags, self._number, 0, body))
        return next(wire.requests(self.sock.recv(_READ_BYTES)))


def _numbered(message: bytes, number: int, *, is_last: bool) -> bytes:
    size, kind, flags, _, port = struct.unpack_from("=IHHII", message)
    flags |= wire.F_ACK if is_last else 0
    return struct.pack("=IHHII", size, kind, flags, number, port) + message[16:]


class Contract:
    """One of the two kernels against which the contract tests run."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def program(self) -> Program:
        """Return a new program with a netfilter socket."""
        sock = self.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
        self._open.append(sock)
        return Program(sock)

    def socket(self, family: int, kind: int, protocol: int) -> Any:
        raise NotImplementedError

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let the product's sockets use this kernel within the block."""
        yield

    def close(self) -> None:
        """Close the sockets of all programs."""
        for sock in self._open:
            sock.close()


class SimulatedKernel(Contract):
    def __init__(self) -> None:
        super().__init__()
        rng = Random(1)
        self.kernel = NetlinkKernel(lambda: 1000.0, rng)
        self.kernel.event_calls = 0
        self.routes = Routes(self.kernel)
        self.tables = NfTables(self.kernel, rng)

    def socket(self, family: int, kind: int, protocol: int) -> Any:
        return self.kernel.socket(family, kind, protocol)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        before = vars(sockets)["socket"]
        vars(sockets)["socket"] = socket_module(self.kernel)
        try:
            yield
        finally:
            vars(sockets)["socket"] = before


class RealKernel(Contract):
    def __init__(self) -> None:
        super().__init__()
        try:
            self.net = Net("node")
        except OSError as exc:
            pytest.skip(f"no network namespace: {exc.strerror}")

    def socket(self, family: int, kind: int, protocol: int) -> Any:
        with self.net:
            return socket.socket(family, kind, protocol)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with self.net:
            yield

    def close(self) -> None:
        super().close()
        self.net.close()


def tree(packed: bytes, depth: int = 3) -> Any:
    """Return nested attributes as a tree that tests can compare; other data as hex."""
    found = wire.attributes(packed)
    whole = sum(4 + len(value) + -len(value) % 4 for _, value in found)
    if depth and found and whole == len(packed) + -len(packed) % 4:
        return [(kind, tree(value, depth - 1)) for kind, value in found]
    return packed.hex()
