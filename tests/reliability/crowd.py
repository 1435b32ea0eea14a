"""A program that runs thousands of misbehaving clients in a namespace.

    storm COUNT IP PORT         connects, requests and reads, 500 at a time; prints JSON
    reset COUNT IP PORT         connects and resets, 500 at a time; prints JSON
    hold COUNT IP PORT TEXT     connects, sends TEXT, never reads; prints JSON when all are open,
                                and exits when standard input ends
    spoofed-syn COUNT IP PORT   sends SYNs from COUNT addresses that never answer; prints JSON
    spoofed-udp COUNT IP PORT   sends a datagram from each of COUNT addresses; prints JSON

It imports only the standard library, so that it starts quickly and in any namespace.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import resource
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from typing import Any

AT_ONCE = 500
TIMEOUT_S = 10.0
# The range of RFC 2544 for benchmarks, which no sandbox uses.
FIRST_SOURCE = int(ipaddress.IPv4Address("198.18.0.1"))
RESET = struct.pack("ii", 1, 0)
_SYN = 0x02


async def connected(address: tuple[str, int]) -> socket.socket:
    """Return a connected socket; raise OSError if the connection fails."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


async def ask(address: tuple[str, int]) -> None:
    """Get one answer over a new connection."""
    loop = asyncio.get_running_loop()
    with await connected(address) as sock:
        async with asyncio.timeout(TIMEOUT_S):
            await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while chunk := await loop.sock_recv(sock, 65536):
                answer += chunk
    if b" 200 " not in answer:
        raise ConnectionError("no answer")


async def reset(address: tuple[str, int]) -> None:
    """Connect, and close with a RST."""
    with await connected(address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


async def run_all(count: int, one: Callable[[], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Call a function this many times, ``AT_ONCE`` at a time; return results or errors' names."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def run() -> Any:
        async with limit:
            try:
                return await one()
            except OSError as exc:
                return type(exc).__name__

    return list(await asyncio.gather(*(run() for _ in range(count))))


async def crowd(kind: str, count: int, address: tuple[str, int], text: str) -> None:
    """Connect this many clients, which behave as one kind; print JSON."""
    one = {"storm": ask, "reset": reset, "hold": connected}[kind]
    results = await run_all(count, lambda: one(address))
    failed = [result for result in results if isinstance(result, str)]
    held = [result for result in results if isinstance(result, socket.socket)]
    for sock in held:
        if text:
            sock.send(text.encode())
        # The exit of this process resets the connections, as does the exit of a container that has
        # unread data.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    report(made=count, failed=len(failed), errors=sorted(set(failed)))
    if kind == "hold":
        await asyncio.to_thread(sys.stdin.read)


def spoof(kind: str, count: int, address: tuple[str, int]) -> None:
    """Send one packet from each of this many addresses."""
    protocol = {"spoofed-udp": socket.IPPROTO_UDP, "spoofed-syn": socket.IPPROTO_TCP}[kind]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for number in range(count):
            source = ipaddress.IPv4Address(FIRST_SOURCE + number).packed
            sock.sendto(packet(protocol, source, address), address)
    report(made=count, failed=0, errors=[])


def packet(protocol: int, source: bytes, address: tuple[str, int]) -> bytes:
    """Return an IPv4 packet with a UDP datagram or a SYN; the kernel completes the IP header."""
    target = socket.inet_aton(address[0])
    port = 1024 + source[3]
    if protocol == socket.IPPROTO_UDP:
        # A checksum of 0 means that there is none.
        body = struct.pack("!HHHH", port, address[1], 8 + len(b"flood"), 0) + b"flood"
    else:
        head = struct.pack("!HHIIBBHHH", port, address[1], 1, 0, 5 << 4, _SYN, 65535, 0, 0)
        pseudo = source + target + struct.pack("!BBH", 0, protocol, len(head))
        body = head[:16] + struct.pack("!H", checksum(pseudo + head)) + head[18:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, protocol, 0, source, target)
    return head + body


def checksum(data: bytes) -> int:
    """Return the Internet checksum of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def report(**facts: object) -> None:
    """Print one line of JSON."""
    sys.stdout.write(f"{json.dumps(facts)}\n")
    sys.stdout.flush()


def main() -> None:
    kind, count, ip, port, *text = sys.argv[1:]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if kind.startswith("spoofed"):
        spoof(kind, int(count), (ip, int(port)))
    else:
        asyncio.run(crowd(kind, int(count), (ip, int(port)), "".join(text)))


if __name__ == "__main__":
    main()
