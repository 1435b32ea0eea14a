"""Small servers for tests and demos: ``python -m userspace_proxy_testing.sandbox.backends``.

    --tcp PORT       HTTP/1.1: answers every request with the name, and X-Client-Address
    --echo PORT      returns the received bytes, and the FIN
    --sum PORT       after the client's FIN: the SHA-256 and the number of the received bytes
    --source PORT    for each line ``N``: N bytes; byte number i is i % 251
    --reset PORT     resets the connection after its first byte
    --close PORT     closes the connection after its first byte
    --silent PORT    answers no SYN, so that dials time out
    --udp PORT       answers ``name: `` and the datagram, cut to the maximum size
    --udp-echo PORT  returns the datagram

Each flag may be repeated. The program prints ``ready`` when all ports are open. SIGUSR1 makes HTTP
answers slow, SIGUSR2 makes them fast again.

Rule 1: each connection has a thread with a blocking socket, so that the kernel's events (a FIN, a
        reset, a full buffer) reach the other side unchanged.
Rule 2: only fast modules of the standard library are imported: a backend starts in 0.03 s.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

CHUNK_BYTES = 256 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_DATAGRAM_BYTES = 65507
RETRY_S = 0.05
SLOW_S = 0.7
PERIOD = 251
# A prime period reveals data that was lost, duplicated, or moved by a power of two.
PATTERN = bytes(range(PERIOD)) * 1024

# The value from linux/in.h, for which Python 3.11 has no name.
IP_PKTINFO = 8

Server = Callable[[socket.socket, str], None]

# Set while answers are slow.
slow = threading.Event()


def serve_http(connection: socket.socket, name: str) -> None:
    """Answer requests, ignoring bodies, until EOF, an invalid request, or the connection's last."""
    client = client_address(connection)
    stream = connection.makefile("rb")
    while request := stream.readline(MAX_HEAD_BYTES):
        headers = {}
        for line in iter(lambda: stream.readline(MAX_HEAD_BYTES).strip(), b""):
            key, _, value = line.partition(b":")
            headers[key.lower()] = value.strip().lower()
        words = request.split()
        length = headers.get(b"content-length", b"0")
        if len(words) != 3 or not length.isdigit() or b"transfer-encoding" in headers:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        stream.read(int(length))
        if slow.is_set():
            threading.Event().wait(SLOW_S)
        kept = keeps_alive(words[2], headers.get(b"connection", b""))
        connection.sendall(http_answer(name, client, kept=kept, body=words[0] != b"HEAD"))
        if not kept:
            return


def keeps_alive(version: bytes, connection: bytes) -> bool:
    """Return whether the connection stays open after this request."""
    return connection == b"keep-alive" or (version == b"HTTP/1.1" and connection != b"close")


def http_answer(name: str, client: str, *, kept: bool, body: bool = True) -> bytes:
    """Return one answer; with ``body=False``, for a HEAD request, only its head."""
    text = f"{name}\n"
    head = (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text.encode())}\r\n"
        f"X-Client-Address: {client}\r\n"
        f"Connection: {'keep-alive' if kept else 'close'}\r\n\r\n"
    )
    return (head + text if body else head).encode()


def serve_echo(connection: socket.socket, _name: str) -> None:
    """Echo the received bytes."""
    while data := connection.recv(CHUNK_BYTES):
        connection.sendall(data)


def serve_sum(connection: socket.socket, _name: str) -> None:
    """Answer with the SHA-256 and the length of the received bytes, after the client's FIN."""
    import hashlib

    digest, count = hashlib.sha256(), 0
    while data := connection.recv(CHUNK_BYTES):
        digest.update(data)
        count += len(data)
    connection.sendall(f"{digest.hexdigest()} {count}\n".encode())


def serve_source(connection: socket.socket, _name: str) -> None:
    """Send as many bytes as each line requests."""
    with connection.makefile("rb") as lines:
        for line in lines:
            for piece in pattern(int(line)):
                connection.sendall(piece)


def pattern(count: int) -> Iterator[bytes]:
    """Yield ``count`` bytes in pieces; byte number i is i % 251."""
    while count > 0:
        yield PATTERN[:count]
        count -= len(PATTERN)


def serve_reset(connection: socket.socket, _name: str) -> None:
    """Reset the connection after its first byte."""
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def serve_close(connection: socket.socket, _name: str) -> None:
    """Read once; the caller then sends a FIN and closes the connection."""
    connection.recv(CHUNK_BYTES)


TCP: dict[str, Server] = {
    "tcp": serve_http,
    "echo": serve_echo,
    "sum": serve_sum,
    "source": serve_source,
    "reset": serve_reset,
    "close": serve_close,
}


def accept_all(listener: socket.socket, server: Server, name: str) -> None:
    """Serve each connection in its own thread."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            # This process is out of descriptors; clients wait in the kernel's queue.
            threading.Event().wait(RETRY_S)
            continue
        threading.Thread(target=serve_one, args=(connection, server, name), daemon=True).start()


def serve_one(connection: socket.socket, server: Server, name: str) -> None:
    """Serve one connection, then send a FIN and close it."""
    with connection, contextlib.suppress(OSError, ValueError):
        server(connection, name)
        connection.shutdown(socket.SHUT_WR)


def client_address(connection: socket.socket) -> str:
    """Return the other side's address without its port."""
    peer = connection.getpeername()
    return str(peer[0]) if isinstance(peer, tuple) else "unknown"


def fill_backlog(listener: socket.socket) -> socket.socket:
    """Fill the listener's queue, so that it drops every SYN.

    Returns:
        The connection in the queue, which must stay open.
    """
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return socket.create_connection((host, port))


def answer_datagrams(sock: socket.socket, prefix: bytes) -> None:
    """Answer each datagram from the address to which it was sent."""
    while True:
        payload, control, _, client = sock.recvmsg(MAX_DATAGRAM_BYTES, 256)
        answer = (prefix + payload)[:MAX_DATAGRAM_BYTES]
        with contextlib.suppress(OSError):
            sock.sendmsg([answer], [reply_from(*one) for one in control], 0, client)


def reply_from(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """Return the control message for answering from a datagram's destination address."""
    if level == socket.IPPROTO_IP:
        # in_pktinfo: interface, local address, destination; for interface 0, routing decides.
        return level, kind, struct.pack("=I4s4s", 0, data[4:8], bytes(4))
    # in6_pktinfo: address, interface; a link-local address needs its interface.
    return level, kind, data if data[:2] == b"\xfe\x80" else data[:16] + bytes(4)


def open_sockets(kind: int, port: int, address: str, backlog: int) -> list[socket.socket]:
    """Open a port on one address, or on all addresses of both families if ``address`` is empty.

    Raises:
        OSError: The port can't be opened; ``filename`` contains address and port.
    """
    found = []
    for host in [address] if address else ["0.0.0.0", "::"]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if host == "::" and not socket.has_dualstack_ipv6():
            continue
        sock = socket.socket(family, kind)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            if kind == socket.SOCK_STREAM:
                sock.listen(backlog)
        except OSError as exc:
            sock.close()
            raise OSError(exc.errno, exc.strerror, f"{host}:{port}") from exc
        found.append(sock)
    return found


def open_tcp(flag: str, port: int, options: argparse.Namespace) -> None:
    """Open one TCP port and serve it."""
    for listener in open_sockets(socket.SOCK_STREAM, port, options.address, 4096):
        # Set the option once, on the listener: connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start(accept_all, listener, TCP[flag], options.name)


def open_silent(port: int, options: argparse.Namespace) -> list[socket.socket]:
    """Open one port that doesn't answer SYNs; the sockets must stay open."""
    listeners = open_sockets(socket.SOCK_STREAM, port, options.address, 0)
    return [*listeners, *(fill_backlog(listener) for listener in listeners)]


def open_udp(port: int, options: argparse.Namespace, prefix: bytes) -> None:
    """Open one UDP port and serve it."""
    for sock in open_sockets(socket.SOCK_DGRAM, port, options.address, 0):
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        start(answer_datagrams, sock, prefix)


def start(target: Callable[..., None], *args: object) -> None:
    """Run a function in a thread that ends with the process."""
    threading.Thread(target=target, args=args, daemon=True).start()


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; an error ends the process."""
    parser = argparse.ArgumentParser(
        prog="backends",
        description=(__doc__ or "").split("\nRule 1")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--name", default="backend", help="the text of answers (backend)")
    parser.add_argument("--address", default="", help="one address instead of all")
    kinds = (*TCP, "silent", "udp", "udp_echo")
    for kind in kinds:
        parser.add_argument(
            f"--{kind.replace('_', '-')}",
            type=int,
            action="append",
            default=[],
            choices=range(1, 65536),
            metavar="PORT",
            help=argparse.SUPPRESS,
        )
    options = parser.parse_args(argv)
    if not any(getattr(options, kind) for kind in kinds):
        parser.error("no port given")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGINT; return the exit status, 1 if a port can't be opened."""
    options = parse(argv)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Block signals, so that they stay pending until sigwait(); other threads inherit the mask.
    numbers = {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    kept: list[socket.socket] = []
    try:
        for flag in TCP:
            for port in getattr(options, flag):
                open_tcp(flag, port, options)
        for port in options.silent:
            kept += open_silent(port, options)
        for port in options.udp:
            open_udp(port, options, f"{options.name}: ".encode())
        for port in options.udp_echo:
            open_udp(port, options, b"")
    except OSError as exc:
        print(f"error: cannot listen on {exc.filename}: {exc.strerror}", file=sys.stderr)
        return 1
    print("ready", flush=True)
    while (number := signal.sigwait(numbers)) != signal.SIGINT:
        (slow.set if number == signal.SIGUSR1 else slow.clear)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
