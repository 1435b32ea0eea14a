"""Clients and endpoints: plain non-blocking sockets on loopback, without a thread.

Peer         one side of a TCP connection, the client's or the endpoint's
TcpEndpoint  listens, and accepts when the test calls it
UdpPeer      one UDP socket, the client's or the endpoint's
"""

from __future__ import annotations

import _socket
import errno
import hashlib
import os
import random
import socket
import struct

from userspace_proxy.model import SocketAddress

from .waiting import readable, writable

_RESET = struct.pack("ii", 1, 0)
_EVERYTHING = 1 << 62
MIB = 1 << 20


def family_of(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def address_of(sock: socket.socket) -> SocketAddress:
    return SocketAddress(*sock.getsockname()[:2])


class Peer:
    """One side of a TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    @property
    def address(self) -> SocketAddress:
        """The socket's own address."""
        return address_of(self.sock)

    async def read(self, most: int = 262144) -> bytes:
        """Wait for bytes and return them; empty after a FIN. A RST raises ConnectionResetError."""
        while True:
            try:
                return self.sock.recv(most)
            except BlockingIOError:
                await readable(self.sock)

    async def read_exactly(self, count: int) -> bytes:
        """Return this many bytes, or fewer if a FIN arrives first."""
        got = bytearray()
        while len(got) < count:
            some = await self.read(min(count - len(got), 262144))
            if not some:
                break
            got += some
        return bytes(got)

    async def read_all(self) -> bytes:
        """Return everything up to the FIN."""
        return await self.read_exactly(_EVERYTHING)

    async def send(self, data: bytes | memoryview) -> None:
        """Pass all bytes to the kernel."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                await writable(self.sock)

    def send_some(self, data: bytes) -> int:
        """Send what the kernel accepts now; return the number of bytes, 0 if its buffer is full."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def fill(self, block: bytes = bytes(65536)) -> int:
        """Send blocks until the kernel's buffer is full; return the number of bytes."""
        total = 0
        while sent := self.send_some(block):
            total += sent
        return total

    def finish(self) -> None:
        """Send a FIN; reading continues."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()

    def close(self) -> None:
        """Close: the kernel sends a FIN if everything was read, otherwise a RST."""
        self.sock.close()

    def detached(self) -> _socket.socket:
        """Return a plain socket with the descriptor, as the data plane uses it."""
        family = self.sock.family
        plain = _socket.socket(family, _socket.SOCK_STREAM, 0, self.sock.detach())
        plain.setblocking(False)
        return plain

    async def was_reset(self) -> bool:
        """Read everything; return whether the connection ended with a RST."""
        try:
            while await self.read():
                pass
        except ConnectionResetError:
            return True
        return False


async def dial(
    address: SocketAddress, *, source: str | None = None, receive_bytes: int = 0
) -> Peer:
    """Return a connection to an address; raise ConnectionRefusedError without a listener.

    Args:
        address: The destination.
        source: The client's own IP address.
        receive_bytes: The size of the receive buffer; 0 for the kernel's choice.
    """
    sock = socket.socket(family_of(address.ip), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if source is not None:
            sock.bind((source, 0))
        number = sock.connect_ex(address)
        if number == errno.EINPROGRESS:
            await writable(sock)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except BaseException:
        sock.close()
        raise
    if number:
        sock.close()
        raise OSError(number, os.strerror(number))
    return Peer(sock)


class TcpEndpoint:
    """A listening socket; the kernel completes handshakes before the test accepts connections."""

    def __init__(self, ip: str = "127.0.0.1", port: int = 0) -> None:
        self.sock = socket.socket(family_of(ip), socket.SOCK_STREAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((ip, port))
        self.sock.listen(1024)
        self.sock.setblocking(False)
        self.address = address_of(self.sock)
        self._accepted: list[Peer] = []

    async def accept(self) -> Peer:
        """Wait for the next connection, and accept it."""
        while True:
            peer = self.accept_now()
            if peer is not None:
                return peer
            await readable(self.sock)

    def accept_now(self) -> Peer | None:
        """Accept a connection; return None if none is pending."""
        try:
            peer = Peer(self.sock.accept()[0])
        except BlockingIOError:
            return None
        self._accepted.append(peer)
        return peer

    def close(self) -> None:
        """Stop listening, and close the accepted connections."""
        self.sock.close()
        for peer in self._accepted:
            peer.close()


class SilentEndpoint:
    """Drops every SYN, because its queue is full and it never accepts."""

    def __init__(self, ip: str = "127.0.0.1") -> None:
        self.sock = socket.socket()
        self.sock.bind((ip, 0))
        self.sock.listen(0)
        self.address = address_of(self.sock)
        self._queued = [socket.socket() for _ in range(2)]
        for sock in self._queued:
            sock.setblocking(False)
            sock.connect_ex(self.address)

    def close(self) -> None:
        """Close the sockets."""
        for sock in (self.sock, *self._queued):
            sock.close()


class RefusingEndpoint:
    """Answers with a RST or an ICMP error; it is bound, so that nothing reuses the port."""

    def __init__(self, kind: socket.SocketKind, ip: str = "127.0.0.1") -> None:
        self.sock = socket.socket(family_of(ip), kind)
        self.sock.bind((ip, 0))
        self.address = address_of(self.sock)
        if kind == socket.SOCK_DGRAM:
            # A connected socket accepts only its peer's datagrams; the kernel rejects others.
            self.sock.connect((ip, 9))

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


class UdpPeer:
    """One UDP socket.

    Args:
        ip: The address to bind.
        port: The port to bind; 0 for any port.
        to: The address to connect to; then the socket receives ICMP errors, and datagrams only from
            this address.
    """

    def __init__(
        self, ip: str = "127.0.0.1", port: int = 0, *, to: SocketAddress | None = None
    ) -> None:
        self.sock = socket.socket(family_of(ip), socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        try:
            self.sock.bind((ip, port))
        except OSError:
            self.sock.close()
            raise
        self.address = address_of(self.sock)
        if to is not None:
            self.sock.connect(to)

    async def receive(self) -> bytes:
        """Return the next datagram."""
        return (await self.receive_from())[0]

    async def receive_from(self) -> tuple[bytes, SocketAddress]:
        """Return the next datagram and its sender."""
        while True:
            try:
                payload, sender = self.sock.recvfrom(65536)
            except BlockingIOError:
                await readable(self.sock)
            else:
                return payload, SocketAddress(*sender[:2])

    def received(self) -> list[bytes]:
        """Return the available datagrams."""
        got = []
        while True:
            try:
                got.append(self.sock.recv(65536))
            except BlockingIOError:
                return got

    def send(self, payload: bytes) -> None:
        """Send to the connected address."""
        self.sock.send(payload)

    def send_to(self, payload: bytes, address: SocketAddress) -> None:
        """Send to an address."""
        self.sock.sendto(payload, address)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


async def exchange(
    client: UdpPeer, pod: UdpPeer, question: bytes = b"question", answer: bytes = b"answer"
) -> SocketAddress:
    """Exchange a question and an answer through the proxy; return its address towards the pod."""
    client.send(question)
    heard, proxy = await pod.receive_from()
    assert heard == question
    pod.send_to(answer, proxy)
    assert await client.receive() == answer
    return proxy


async def pour(peer: Peer, count: int, seed: int) -> str:
    """Send this many bytes in random pieces, then a FIN; return their digest."""
    rng = random.Random(seed)
    block = memoryview(rng.randbytes(4 * MIB))
    digest = hashlib.sha256()
    while count:
        size = min(count, rng.choice([1, 100, 4096, 65536, MIB]) + rng.randrange(1000))
        start = rng.randrange(len(block) - size)
        piece = block[start : start + size]
        digest.update(piece)
        await peer.send(piece)
        count -= size
    peer.finish()
    return digest.hexdigest()


async def read_digest(peer: Peer) -> str:
    """Return the digest of everything up to the FIN."""
    digest = hashlib.sha256()
    while piece := await peer.read(MIB):
        digest.update(piece)
    return digest.hexdigest()
