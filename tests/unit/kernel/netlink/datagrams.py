"""A fake kernel that sends prepared datagrams to the other end of a socket pair."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterable

from userspace_proxy.kernel.netlink import Requests

ERROR, DONE = 2, 3
MULTI, INTERRUPTED = 0x2, 0x10


def message(kind: int, body: bytes = b"", *, number: int = 1, flags: int = MULTI) -> bytes:
    """Return a netlink message; ``number`` is the sequence number of its request."""
    padding = bytes(-len(body) % 4)
    return struct.pack("=IHHII", 16 + len(body), kind, flags, number, 0) + body + padding


def error(code: int, number: int = 1) -> bytes:
    """Return an error reply; code 0 is an acknowledgement."""
    return message(ERROR, struct.pack("=i", -code) + bytes(16), number=number, flags=0)


def done(number: int = 1, *, code: int = 0, flags: int = MULTI) -> bytes:
    """Return the message that ends a listing."""
    return message(DONE, struct.pack("=i", -code), number=number, flags=flags)


class Kernel:
    """A socket pair: one end belongs to Requests, the other end sends these datagrams."""

    def __init__(self, *datagrams: bytes) -> None:
        asking, self._answering = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.answer(datagrams)
        self.requests = Requests(asking)

    def answer(self, datagrams: Iterable[bytes]) -> None:
        """Send datagrams; stop if the other end is closed."""
        with contextlib.suppress(ConnectionError):
            for datagram in datagrams:
                self._answering.send(datagram)

    def asked(self) -> bytes:
        """Return the next datagram that Requests has sent."""
        return self._answering.recv(1 << 16)

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.requests.close()
        self._answering.close()
