"""Replaces ``socket.getaddrinfo`` in this process by a function that resolves Service names.

    getaddrinfo(host, port) ──▶ the innermost `with`, … the outermost ──not found──▶ original

asyncio's event loop, requests, httpx, urllib3 and most other libraries call that function. C
libraries (libpq), uvloop, and ``socket.connect`` with a name don't.

Rule 1: the function is replaced while at least one `with` block is open, for all threads.
Rule 2: if another library has replaced the function since then, its replacement stays. If the
replacement calls this module's function while no block is open, it calls only the original.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..model.addresses import is_ip

AddressInfo = tuple[Any, Any, int, str, Any]
"""An item of the list that ``socket.getaddrinfo`` returns."""
GetAddressInfo = Callable[..., list[AddressInfo]]


class LookedUp(Protocol):
    """The result of looking up a host name."""

    @property
    def name(self) -> str:
        """The absolute name, with a trailing dot."""

    @property
    def ips(self) -> tuple[str, ...]:
        """The name's addresses; may be empty."""

    @property
    def elsewhere(self) -> str:
        """The name to look up instead; empty unless the name is an alias."""


class Names(Protocol):
    """The names of one proxy's Services; safe to call from any thread."""

    def find(self, host: str) -> LookedUp | None:
        """Look up a host name; None if it isn't a cluster name."""

    def reached(self, ip: str, port: int, *, is_udp: bool) -> tuple[str, int]:
        """Return the address to dial for an address and port of a Service."""


class _Process:
    def __init__(self) -> None:
        self.original: GetAddressInfo = socket.getaddrinfo
        self.open: tuple[Names, ...] = ()
        self.lock = threading.Lock()


_process = _Process()


class ProcessNames:
    """A `with` block in which this process resolves Service names; may be nested."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __enter__(self) -> None:
        with _process.lock:
            if not _process.open and socket.getaddrinfo is not _getaddrinfo:
                _process.original = socket.getaddrinfo
                socket.getaddrinfo = _getaddrinfo
            _process.open = (self._names, *_process.open)

    def __exit__(self, *_exc: object) -> None:
        with _process.lock:
            left = list(_process.open)
            left.remove(self._names)
            _process.open = tuple(left)
            if not left and socket.getaddrinfo is _getaddrinfo:
                socket.getaddrinfo = _process.original


def _getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,  # noqa: A002 - as in socket.getaddrinfo
    proto: int = 0,
    flags: int = 0,
) -> list[AddressInfo]:
    """Return what ``socket.getaddrinfo`` would return if Service names were in DNS."""
    for names in _process.open:
        found = look_up(names, _process.original, host, port, family, type, proto, flags)
        if found is not None:
            return found
    return _process.original(host, port, family, type, proto, flags)


def look_up(
    names: Names,
    original: GetAddressInfo,
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type_: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[AddressInfo] | None:
    """Look up a name as ``socket.getaddrinfo`` does; None if it isn't a cluster name.

    Args:
        original: Converts addresses, and resolves all other names.

    Raises:
        socket.gaierror: No such Service, no address of the family, or ``original`` fails.
    """
    text = _text(host)
    found = None if text is None or flags & socket.AI_NUMERICHOST else names.find(text)
    if found is None:
        return None
    if found.elsewhere:
        return original(found.elsewhere, port, family, type_, proto, flags)
    infos: list[AddressInfo] = []
    # With only a loopback interface, AI_ADDRCONFIG would exclude even addresses in 127.0.0.0/8.
    flags &= ~socket.AI_ADDRCONFIG
    for ip in _of_family(found.ips, family):
        infos += original(ip, port, family, type_, proto, flags)
    if not infos:
        raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {text}")
    name = found.name.removesuffix(".") if flags & socket.AI_CANONNAME else ""
    return [_reached(names, info, name) for info in infos]


def _text(host: bytes | str | None) -> str | None:
    """Return a host name as text; None for an address or a missing host."""
    if not host:
        return None
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    return None if is_ip(text.partition("%")[0]) else text


def _of_family(ips: Sequence[str], family: int) -> list[str]:
    wanted = {socket.AF_INET: ".", socket.AF_INET6: ":"}.get(socket.AddressFamily(family), "")
    return [ip for ip in ips if wanted in ip]


def _reached(names: Names, info: AddressInfo, name: str) -> AddressInfo:
    family, type_, proto, canonical, address = info
    is_udp = type_ == socket.SOCK_DGRAM
    ip, port = names.reached(address[0], address[1], is_udp=is_udp)
    return family, type_, proto, name if canonical else "", (ip, port, *address[2:])
