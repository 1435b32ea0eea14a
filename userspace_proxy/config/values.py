"""Parses the text of settings: booleans, addresses, CIDRs, ports and port ranges.

The forms are the same as for kube-proxy's flags: ``10.0.0.1:10256``, ``[::]:10256``,
``17000-29999``, ``17000+999``. IP addresses and networks are returned as text in canonical form.
Other texts raise ConfigError: ``'abc' is not a port``.
"""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from ..errors import ConfigError
from ..model import SocketAddress, parse_ip


class PortRange(NamedTuple):
    """Ports from the first to the last one, inclusive."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


class InheritedSocket(NamedTuple):
    """A listening socket that the parent process opened: ``fd://3``."""

    fd: int

    def __str__(self) -> str:
        return f"fd://{self.fd}"


ListenAddress = SocketAddress | InheritedSocket

_DIGITS = re.compile(r"\d{1,9}", re.ASCII)
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


def parse_bool(text: str) -> bool:
    """Parse a boolean as Go's strconv.ParseBool does."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"{text!r} is not true or false")


def parse_address(text: str) -> str:
    """Parse an IP address; return it in canonical form."""
    try:
        return parse_ip(text.removeprefix("[").removesuffix("]"))
    except ValueError as exc:
        raise ConfigError(str(exc)) from None


def parse_listen_address(text: str, default_port: int) -> ListenAddress | None:
    """Parse a server's listen address; return None if it is empty, which disables the server.

    Args:
        text: ``10.0.0.1``, ``10.0.0.1:10256``, ``:10256``, ``::``, ``[::]:10256`` or ``fd://3``.
        default_port: The port if the text has none.

    Source: kube-proxy's IPPortVar and AppendPortIfNeeded; port 0 means any free port.
    """
    text = text.strip()
    if not text:
        return None
    if text.startswith("fd://"):
        if not _DIGITS.fullmatch(text[5:]):
            raise ConfigError(f"{text!r} is not a file descriptor", hint="write fd://3")
        return InheritedSocket(int(text[5:]))
    host, colon, port = text.rpartition(":")
    if not colon or "]" in port or (":" in host and not host.startswith("[")):
        return SocketAddress(parse_address(text), default_port)
    return SocketAddress(parse_address(host) if host else "0.0.0.0", parse_port(port))


def parse_port(text: str) -> int:
    """Parse a port, 0–65535."""
    if not _DIGITS.fullmatch(text):
        raise ConfigError(f"{text!r} is not a port")
    if int(text) > 65535:
        raise ConfigError(f"{text} is not in 0–65535")
    return int(text)


def parse_cidr(text: str) -> str:
    """Parse a network; return it in canonical form with host bits cleared, as kube-proxy does."""
    address, slash, _ = text.partition("/")
    if not slash:
        alone = "128" if ":" in parse_address(address) else "32"
        raise ConfigError(
            f"{text!r} has no prefix length", hint=f"write {text}/{alone} for a single address"
        )
    parse_address(address)
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ConfigError(f"{text!r} is not a CIDR") from None


def parse_port_range(text: str) -> PortRange | None:
    """Parse a port range: ``begin-end``, ``begin+offset`` or a single port.

    Returns None for kube-proxy's forms of "any": an empty string, ``0`` and ``0-0``.

    Source: k8s.io/apimachinery/pkg/util/net, PortRange.Set.
    """
    text = text.strip()
    if text in ("", "0", "0-0", "0+0"):
        return None
    found = re.fullmatch(r"(\d{1,9})(?:([-+])(\d{1,9}))?", text, re.ASCII)
    if found is None:
        raise ConfigError(f"{text!r} is not a port range", hint="write 17000-29999 or 17000+999")
    first = int(found[1])
    last = first if found[2] is None else int(found[3]) + (first if found[2] == "+" else 0)
    if last < first:
        raise ConfigError(f"{text!r} ends before it begins")
    if first < 1 or last > 65535:
        raise ConfigError(f"{text!r} is not within 1–65535")
    return PortRange(first, last)
