"""Chooses the proxy for a server: from the kubeconfig, or from the environment by Go's rules.

    proxy-url, or HTTPS_PROXY, HTTP_PROXY and NO_PROXY ──▶ WebProxy, or none

Source: golang.org/x/net/http/httpproxy, which kubectl and kube-proxy use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import unquote, urlsplit

from ...errors import SourceError

PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
SCHEMES = ("http", "https", "socks5")

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<user>(?:[^/?#%]|%[0-9a-fA-F]{2})*)@)?(?P<host>\[[^\]/?#]+\]|[^\[\]:/?#@]*)(?::(?P<port>\d*))?(?:[/?#].*)?",
    re.ASCII,
)
_NO_URL = re.compile(r"[\x00-\x20\x7f]")
_NETWORK = re.compile(r"[0-9a-f.:]+/\d+", re.ASCII)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class WebProxy:
    """An HTTP or SOCKS proxy."""

    scheme: str
    host: str
    """A name, or an address without brackets."""
    port: int
    user: str | None
    """User and password as in the URL; None if there are none."""
    origin: str
    """The source of the setting: a variable, or a place in a kubeconfig."""

    @property
    def is_socks(self) -> bool:
        """Whether this is a SOCKS proxy, which forwards bytes without HTTP."""
        return self.scheme.startswith("socks5")

    @property
    def url(self) -> str:
        """The proxy's URL, with user and password."""
        return f"{self.scheme}://{'' if self.user is None else f'{self.user}@'}{self._address}"

    @property
    def credentials(self) -> tuple[str, str] | None:
        if self.user is None:
            return None
        name, _, password = self.user.partition(":")
        return unquote(name), unquote(password)

    def __str__(self) -> str:
        return f"the proxy {self.scheme}://{self._address} of {self.origin}"

    @property
    def _address(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def choose_proxy(
    server: str, proxy_url: str, place: str, environment: Mapping[str, str]
) -> WebProxy | None:
    """Return the proxy for a server; None if there is none.

    Args:
        server: The server's URL.
        proxy_url: The URL in the kubeconfig, which takes precedence; may be empty.
        place: The place of the URL in the kubeconfig.

    Raises:
        SourceError: The URL is invalid, its scheme isn't supported, or this is a CGI program.
    """
    if not proxy_url:
        return proxy_of_environment(server, environment)
    proxy = read_proxy(proxy_url, place)
    if proxy is None:
        raise SourceError(f"cannot use kubeconfig {place}: is not the URL of a proxy", hint=_HINT)
    if proxy.scheme not in SCHEMES:
        raise SourceError(
            f"cannot use kubeconfig {place}: the scheme {proxy.scheme!r} is not supported",
            hint=f"one of {', '.join(SCHEMES)}",
        )
    return proxy


_HINT = "write it as http://10.0.0.1:3128"


def proxy_of_environment(server: str, environment: Mapping[str, str]) -> WebProxy | None:
    """Return the environment's proxy for a server; None without one, or if NO_PROXY excludes it.

    Raises:
        SourceError: The URL is invalid, its scheme isn't supported, or this is a CGI program, so
            that the variable may come from a client's header.
    """
    parts = urlsplit(server)
    variable, text = _first(environment, f"{parts.scheme.upper()}_PROXY")
    if not text:
        return None
    if parts.scheme == "http" and environment.get("REQUEST_METHOD"):
        raise SourceError(
            f"cannot use {variable}: this is a CGI program (REQUEST_METHOD is set), "
            "whose clients can set it",
            hint="remove one of the two variables",
        )
    host, port = parts.hostname or "", str(parts.port or PORTS[parts.scheme])
    if is_excluded(host, port, _first(environment, "NO_PROXY")[1]):
        return None
    proxy = read_proxy(text if "://" in text else f"http://{text}", variable)
    if proxy is None:
        raise SourceError(f"cannot use {variable}: it is not the URL of a proxy", hint=_HINT)
    if proxy.scheme not in PORTS:
        hint = f"one of {', '.join(PORTS)}"
        raise SourceError(
            f"cannot use {variable}: the scheme {proxy.scheme!r} is not supported", hint=hint
        )
    return proxy


def read_proxy(text: str, origin: str) -> WebProxy | None:
    """Parse a proxy's URL, with any scheme; None if it isn't a URL with a valid host and port."""
    found = _URL.fullmatch(text)
    if found is None or not found["host"] or _NO_URL.search(text):
        return None
    scheme = found["scheme"].lower()
    port = int(found["port"] or PORTS.get(scheme, 0)) if len(found["port"] or "") < 6 else 0
    if port > 65535 or (port == 0 and scheme in PORTS):
        return None
    return WebProxy(scheme, found["host"].strip("[]"), port, found["user"], origin)


def is_excluded(host: str, port: str, no_proxy: str) -> bool:
    """Return whether NO_PROXY excludes a host, or the host is localhost or a loopback address.

    Args:
        host: A name in lower case, or an address without brackets.
        no_proxy: The value of NO_PROXY.
    """
    address = _read_address(host.partition("%")[0] if ":" in host else host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    name = _ascii(host)
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    if "*" in entries:
        return True
    if address is None:
        return any(_excludes_name(entry, name, port) for entry in entries)
    return any(_excludes_address(entry, address, port) for entry in entries)


def _excludes_address(entry: str, address: Address, port: str) -> bool:
    if "/" in entry:
        network = _read_network(entry)
        return network is not None and address.version == network.version and address in network
    name, only_port = _split_port(entry)
    return _read_address(name) == address and only_port in ("", port)


def _excludes_name(entry: str, host: str, port: str) -> bool:
    name, only_port = _split_port(entry)
    name = _ascii(name.removeprefix("*") if name.startswith("*.") else name)
    if not name or only_port not in ("", port):
        return False
    if name.startswith("."):
        return host.endswith(name)
    return host == name or host.endswith(f".{name}")


def _split_port(entry: str) -> tuple[str, str]:
    """Return host and port; the whole entry and no port if it has another form."""
    if entry.startswith("["):
        host, bracket, rest = entry[1:].partition("]")
        return (host, rest[1:]) if bracket and rest.startswith(":") else (entry, "")
    host, colon, port = entry.partition(":")
    return (host, port) if colon and ":" not in port else (entry, "")


def _read_network(entry: str) -> Network | None:
    try:
        # As in Go, a netmask isn't accepted.
        network = ip_network(entry, strict=False) if _NETWORK.fullmatch(entry) else None
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped:
        return ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _read_address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.version == 6 and address.ipv4_mapped) or address


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name


def _first(environment: Mapping[str, str], name: str) -> tuple[str, str]:
    for variable in (name, name.lower()):
        if text := environment.get(variable):
            return variable, text
    return name, ""
