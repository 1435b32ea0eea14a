"""Dials without curl and nc: ``python -m userspace_proxy_testing.sandbox.client``.

    http URL [--count N]               GET it, each time with a new connection
    tcp HOST:PORT [TEXT]               send TEXT and a FIN, print the answer
    udp HOST:PORT TEXT [--count N]     send TEXT, print the answer, with one socket

Prints one line per answer. Without an answer, prints the cause in one line and exits with status 1.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

MAX_DATAGRAM_BYTES = 65535


def get(url: str, count: int, timeout_s: float) -> Iterator[str]:
    """Yield a web server's ``count`` answers; raise OSError or HTTPException if one is missing."""
    parts = urlsplit(url)
    for _ in range(count):
        sock = socket.create_connection((parts.hostname or "", parts.port or 80), timeout_s)
        answer, body = fetch(url, sock)
        text = body.decode(errors="replace").strip()
        yield text if answer.status == 200 else f"{answer.status} {answer.reason}: {text}"


def fetch(
    url: str, sock: socket.socket, headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """GET a URL over a connection, then close it; return the response with its body read.

    Raises:
        OSError, HTTPException: The connection failed or timed out, or the answer isn't HTTP.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80)
    connection.sock = sock
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET", target, headers={"Connection": "close", **(headers or {})})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def talk(address: tuple[str, int], text: str | None, timeout_s: float) -> Iterator[str]:
    """Yield a TCP server's answer, or without ``text`` a confirmation; raise OSError on failure."""
    with socket.create_connection(address, timeout_s) as connection:
        if text is None:
            yield f"connected to {join(address)}"
            return
        connection.sendall(f"{text}\n".encode())
        # After a reset this call fails; the next read reports the reset.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            yield stream.read().decode(errors="replace").strip()


def ask(address: tuple[str, int], text: str, count: int, timeout_s: float) -> Iterator[str]:
    """Yield a UDP server's ``count`` answers; raise OSError if an answer is refused or missing."""
    family, kind, protocol, _, to = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(timeout_s)
        sock.connect(to)
        for _ in range(count):
            sock.send(text.encode())
            yield sock.recv(MAX_DATAGRAM_BYTES).decode(errors="replace").strip()


def split(text: str) -> tuple[str, int]:
    """Parse ``HOST:PORT``, with an IPv6 address in brackets.

    Raises:
        argparse.ArgumentTypeError: There is no host, or the port is invalid.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join(address: tuple[str, int]) -> str:
    """Return an address in the form that ``split`` parses."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url(text: str) -> str:
    """Return the URL if it is valid.

    Raises:
        argparse.ArgumentTypeError: The URL isn't ``http://`` with a host and a valid port.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{text!r} is not http://HOST[:PORT][/PATH]")
    return text


def positive(text: str) -> int:
    """Parse a count; raise ValueError unless it is 1 or more."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; an error ends the process with status 2."""
    parser = argparse.ArgumentParser(
        prog="client", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--timeout", type=float, default=5.0, help="seconds to wait for each answer"
    )
    counted = argparse.ArgumentParser(add_help=False, parents=[common])
    counted.add_argument("--count", type=positive, default=1, help="number of requests")
    commands = parser.add_subparsers(dest="command", required=True)
    web = commands.add_parser("http", parents=[counted], help="GET a URL")
    web.add_argument("url", type=url, metavar="URL")
    tcp = commands.add_parser("tcp", parents=[common], help="dial TCP")
    tcp.add_argument("address", type=split, metavar="HOST:PORT")
    tcp.add_argument("text", nargs="?", metavar="TEXT")
    udp = commands.add_parser("udp", parents=[counted], help="send datagrams")
    udp.add_argument("address", type=split, metavar="HOST:PORT")
    udp.add_argument("text", metavar="TEXT")
    return parser.parse_args(argv)


def plan(options: argparse.Namespace) -> tuple[str, Callable[[], Iterator[str]]]:
    """Return the URL or ``HOST:PORT/TCP`` for messages, and the function that dials it."""
    if options.command == "http":
        return options.url, lambda: get(options.url, options.count, options.timeout)
    where = f"{join(options.address)}/{options.command.upper()}"
    if options.command == "tcp":
        return where, lambda: talk(options.address, options.text, options.timeout)
    return where, lambda: ask(options.address, options.text, options.count, options.timeout)


def explain(exc: Exception, timeout_s: float) -> str:
    """Return the cause of an error, in the kernel's words if possible."""
    if isinstance(exc, TimeoutError) and exc.errno is None:
        return f"no answer after {timeout_s:g} s"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc) or type(exc).__name__


def main(argv: Sequence[str] | None = None) -> int:
    """Dial, print the answers, and return the exit status."""
    options = parse(argv)
    where, dial = plan(options)
    try:
        for answer in dial():
            print(answer, flush=True)
    except KeyboardInterrupt:
        return 130
    except (OSError, http.client.HTTPException) as exc:
        print(f"error: cannot reach {where}: {explain(exc, options.timeout)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
