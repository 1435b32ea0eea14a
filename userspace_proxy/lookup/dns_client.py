"""Queries DNS servers: bytes in, bytes out; only the used parts of answers are parsed.

    query ──UDP──▶ server ──▶ answer
                     └ truncated, without an address: TCP

Rule 1: a datagram that isn't the answer is skipped, but only a few times.
Rule 2: the size of an answer over TCP is bounded; a larger answer isn't received.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from ..model import SocketAddress
from .dns_wire import AddressAnswer, MalformedMessage, Query, is_answer, is_truncated, read_answer

TCP_BYTES_MAX = 65535
ADDRESS_BYTES_MAX = 8192
"""The maximum size of an answer over TCP to a query for addresses."""
_UDP_BYTES_MAX = 65535
_SKIPPED_MAX = 16
_LENGTH = struct.Struct(">H")


async def ask_by_udp(server: SocketAddress, query: Query, seconds: float) -> bytes:
    """Return a server's answer to a query.

    Raises:
        TimeoutError: No answer arrived in time.
        OSError: The server can't be reached.
        MalformedMessage: The server's answers don't match the query.
    """
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(tuple(server))
        async with asyncio.timeout(seconds):
            await loop.sock_sendall(sock, query.wire)
            for _ in range(_SKIPPED_MAX):
                answer = await loop.sock_recv(sock, _UDP_BYTES_MAX)
                if is_answer(answer, query):
                    return answer
    raise MalformedMessage("it answers another question")


async def ask_by_tcp(
    server: SocketAddress, query: Query, seconds: float, most: int = TCP_BYTES_MAX
) -> bytes:
    """Return a server's answer to a query, of at most ``most`` bytes.

    Raises:
        TimeoutError, OSError: As for :func:`ask_by_udp`.
        EOFError: The server closed the connection before the answer was complete.
        MalformedMessage: The answer is for another question, or is too large.
    """
    async with asyncio.timeout(seconds):
        reader, writer = await asyncio.open_connection(*server)
        try:
            writer.write(_LENGTH.pack(len(query.wire)) + query.wire)
            (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            if size > most:
                raise MalformedMessage(f"its answer has {size:,} bytes, and {most:,} are read")
            answer = await reader.readexactly(size)
        finally:
            writer.close()
    if not is_answer(answer, query):
        raise MalformedMessage("it answers another question")
    return answer


async def ask_for_addresses(server: SocketAddress, query: Query, seconds: float) -> AddressAnswer:
    """Return a server's answer to a query for addresses; ``seconds`` limits UDP and TCP each.

    Raises:
        TimeoutError, OSError, EOFError, MalformedMessage: As for :func:`ask_by_tcp`, or the answer
            is malformed.
    """
    wire = await ask_by_udp(server, query, seconds)
    if is_truncated(wire):
        # Ignore an error, because some servers truncate in the middle of a record.
        with contextlib.suppress(MalformedMessage):
            # A truncated answer with addresses suffices: others aren't worth a query over TCP.
            if (answer := read_answer(wire, query)).addresses:
                return answer
        wire = await ask_by_tcp(server, query, seconds, ADDRESS_BYTES_MAX)
    return read_answer(wire, query)
