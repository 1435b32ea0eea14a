"""Defines kinds of values for one or two settings, such as listen addresses and node names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..model import SocketAddress
from .kinds import TEXT, Kind, integer, texts, wrong_type
from .values import InheritedSocket, parse_address, parse_cidr, parse_listen_address

# The words that may appear among CIDRs. Source: KEP-6032, kube-proxy's NodePortAddresses of 1.37.
_NODEPORT_WORDS = ("primary", "localhost", "all")
# A node's name is a DNS subdomain. Source: RFC 1123, Kubernetes' object names.
_NODE_NAME = re.compile(
    r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
)
# The value of a label. Source: Kubernetes' IsValidLabelValue.
_LABEL_VALUE = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
# The characters of a URL. Source: RFC 3986, section 2.
_URL_TEXT = re.compile(r"[-A-Za-z0-9._~:/?#\[\]!$&'()*+,;=%]+")
# The maximum number of workers. With more, the kernel's SO_REUSEPORT groups become slow, and nodes
# can't spare more cores for a proxy.
_WORKERS_MAX = 64


def listen_address(default_port: int) -> Kind:
    """Return the kind for a server's listen address; ``disabled`` disables the server.

    In a flag, an empty string also disables the server. In a file, it means the default, because
    kubeadm writes it.
    """
    return Kind(
        "ADDRESS",
        lambda text: parse_listen_address("" if text == "disabled" else text, default_port),
        lambda address: "disabled" if address is None else str(address),
        expected="text such as 0.0.0.0:10256",
    )


def dns_address() -> Kind:
    """Return the kind for a DNS server's address, by default with port 53, or ``disabled``."""
    return Kind(
        "IP[:PORT]",
        _parse_dns_address,
        lambda address: "disabled" if address is None else str(address),
        expected="text such as 127.0.0.1:53",
    )


def folder() -> Kind:
    """Return the kind for a folder; ``disabled`` or an empty string means none."""
    return Kind(
        "PATH",
        lambda text: "" if text == "disabled" else TEXT.parse(text),
        lambda path: path or "disabled",
    )


def _parse_node_name(text: str) -> str:
    # Trim and lower-case the name, as kube-proxy and the kubelet do.
    name = text.strip().lower()
    if name and not _NODE_NAME.fullmatch(name):
        raise ConfigError(f"{text!r} is not a node's name", hint="letters, digits, '-' and '.'")
    return name


def _parse_label_value(text: str) -> str:
    if not _LABEL_VALUE.fullmatch(text):
        raise ConfigError(
            f"{text!r} is not a label's value, so no Service can have it",
            hint="at most 63 letters, digits, '-', '_' and '.'; the first and the last one is a "
            "letter or a digit",
        )
    return text


def _parse_dns_address(text: str) -> SocketAddress | None:
    address = parse_listen_address("" if text == "disabled" else text, 53)
    if isinstance(address, InheritedSocket):
        raise ConfigError(f"{text!r} is one socket, and DNS needs two", hint="write 127.0.0.1:53")
    return address


def _parse_domain(text: str) -> str:
    domain = text.strip().lower().removesuffix(".")
    if not _NODE_NAME.fullmatch(domain):
        raise ConfigError(f"{text!r} is not a domain", hint="write cluster.local")
    return domain


def _parse_server(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    if "@" in text:
        # Check this first: users who must not see a password may see settings and errors.
        raise ConfigError("a URL must not contain a password", hint="put it into the kubeconfig")
    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or parts.scheme not in ("http", "https") or not _URL_TEXT.fullmatch(url):
        raise ConfigError(f"{text!r} is not a server's URL", hint="write https://10.0.0.1:6443")
    return url


def _parse_cidrs(text: str) -> tuple[str, ...]:
    return tuple(parse_cidr(item.strip()) for item in text.split(",") if item.strip())


def _parse_nodeport_address(text: str) -> str:
    if text in _NODEPORT_WORDS:
        return text
    if text.isalpha():
        raise ConfigError(f"{text!r} is not a CIDR", hint=f"or write {', '.join(_NODEPORT_WORDS)}")
    return parse_cidr(text)


def _check_any(items: Sequence[str]) -> None:
    if not items:
        raise ConfigError("contains no network", hint="write 10.96.0.0/12, or leave it out")


_COUNT = integer(1, _WORKERS_MAX)


def _parse_workers(text: str) -> int | None:
    if text == "auto":
        return None
    try:
        count: int = _COUNT.parse(text)
    except ConfigError as exc:
        raise ConfigError(exc.message, hint=f"write auto, or 1–{_WORKERS_MAX}") from None
    return count


def _plain_workers(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_COUNT.read(value))
    raise wrong_type(value, "auto or a whole number")


NODE_ADDRESS = Kind("IP", lambda text: parse_address(text.strip()))
DOMAIN = Kind("DOMAIN", _parse_domain)
NODE_NAME = Kind("NAME", _parse_node_name)
LABEL_VALUE = Kind("LABEL", _parse_label_value)
SERVER = Kind("URL", _parse_server)
# In kube-proxy's file this is a string, not a list; a comma separates the two families.
JOINED_CIDRS = Kind("CIDR,...", _parse_cidrs, ",".join)
SERVICE_CIDRS = texts("CIDR,...", parse_cidr, check=_check_any)
EXTERNAL_CIDRS = texts("CIDR,...", parse_cidr)
NODEPORT_ADDRESSES = texts("CIDR,...", _parse_nodeport_address, accepts_text=False)
WORKERS = Kind(
    "N|auto",
    _parse_workers,
    lambda count: "auto" if count is None else count,
    expected="auto or a whole number",
    read_plain=_plain_workers,
)
