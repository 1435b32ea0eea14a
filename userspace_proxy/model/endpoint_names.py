"""Defines endpoints by DNS name: names in objects, DNS answers, and slices derived from both.

    annotation of a Service ─┐
    slice of names (FQDN) ───┴─▶ NameSlice ──lookups (cluster.from_names)──▶ ResolvedSlice

Rule 1: an IP address in place of a DNS name is an error.
Rule 2: names are absolute: the node's DNS search list isn't used.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import ConfigError
from .addresses import IPFamily
from .endpoints import Endpoint, EndpointSlice
from .quoting import quoted

NAMES_MAX = 16
"""The maximum number of names looked up for one Service: more than a database has replicas."""
HOST_MAX = 253
"""The maximum length of a name without its trailing dot, in characters. Source: RFC 1035, 255 bytes
on the wire."""
# A label of a host name. Underscores aren't valid, but some host names have them.
_LABEL = r"[a-z0-9_](?:[-a-z0-9_]{0,61}[a-z0-9_])?"
_IS_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A host whose addresses are endpoints of a Service port."""

    host: str
    """The host name in lower case, without a trailing dot."""
    port: int
    """The port to dial on the host."""
    port_name: str = ""
    """The Service port's name; empty for a Service's only port."""


@dataclass(frozen=True, slots=True)
class NameSlice(EndpointSlice):
    """A slice with names instead of addresses, and no endpoints; its family has no meaning."""

    named: tuple[Endpoint, ...] = ()
    """The endpoints with names instead of addresses."""

    @staticmethod
    def of(item: EndpointSlice) -> NameSlice:
        """Convert a slice whose endpoints have names instead of addresses."""
        return NameSlice(
            item.key,
            item.service,
            item.family,
            item.ports,
            (),
            item.triggered_at,
            item.notes,
            named=item.endpoints,
        )


class NameState(enum.Enum):
    """Why a name's addresses aren't used as endpoints, or are outdated."""

    NOT_ALLOWED = "not allowed"
    """The operator hasn't allowed the name."""
    NETWORKS_UNKNOWN = "networks unknown"
    """The pod networks are unknown, so no name is looked up."""
    NODES_UNKNOWN = "nodes unknown"
    """The addresses of Nodes are unknown, so no name is looked up."""
    TOO_MANY = "too many"
    PENDING = "pending"
    """The name has not been looked up yet."""
    UNRESOLVED = "unresolved"
    STALE = "stale"
    """The name no longer resolves; its last addresses are still used."""
    FORBIDDEN = "forbidden"
    """One of the name's addresses must not be dialled."""
    NO_ADDRESS = "no address"
    """The name has addresses, but no address of this family."""


_NEVER_LOOKED_UP = (NameState.NOT_ALLOWED, NameState.NETWORKS_UNKNOWN, NameState.TOO_MANY)


@dataclass(frozen=True, slots=True)
class NameProblem:
    """One problem of one name."""

    host: str
    state: NameState
    detail: str = ""
    """The DNS answer, or the address concerned, as a clause."""
    since: float = 0.0
    """Monotonic seconds at which the problem began; 0 if unknown."""


@dataclass(frozen=True, slots=True)
class ResolvedSlice(EndpointSlice):
    """The addresses of one name and family, as endpoints."""

    problems: tuple[NameProblem, ...] = ()

    @property
    def needs_nodes(self) -> bool:
        """Whether the slice's endpoints depend on the Nodes' addresses."""
        return not any(problem.state in _NEVER_LOOKED_UP for problem in self.problems)


class Lookup(NamedTuple):
    """The DNS answer for one name."""

    addresses: Mapping[IPFamily, tuple[str, ...]]
    """Sorted addresses by family; a family is missing if no server answered for it."""
    ttl_s: float = 0.0
    """How long the addresses are valid."""
    why: str = ""
    """Why there is no address, as a clause; empty if there is an address."""


def read_endpoint_names(text: str) -> tuple[EndpointName, ...]:
    """Parse the annotation ``endpoints``: ``db.example.com:5432,…``.

    Raises:
        ConfigError: An item isn't ``host:port`` or ``port name=host:port``, or there are too many.
    """
    items = text.split(",")
    if len(items) > NAMES_MAX:
        raise ConfigError(f"it has {len(items)} items, and at most {NAMES_MAX} are looked up")
    return tuple(dict.fromkeys(_read_item(item.strip()) for item in items))


def _read_item(item: str) -> EndpointName:
    port_name, equals, rest = item.rpartition("=")
    host, colon, port = rest.rpartition(":")
    if not (colon and host and _PORT.fullmatch(port)) or (equals and not port_name):
        raise ConfigError(f"{quoted(item)} is not a name with a port", hint="write HOST:PORT")
    if not 1 <= int(port) <= 65535:
        raise ConfigError(f"{quoted(item)}: {port} is not in 1–65535")
    return EndpointName(read_host(host), int(port), port_name)


def read_host(text: str) -> str:
    """Return a DNS name in lower case, without its trailing dot.

    Raises:
        ConfigError: The text is an address, or not a DNS name.
    """
    host = text.lower().removesuffix(".") if len(text) <= HOST_MAX + 1 else ""
    if ":" in text or host.rpartition(".")[2].isdigit():
        raise ConfigError(f"{quoted(text)} is not a DNS name: addresses belong in EndpointSlices")
    if len(host) > HOST_MAX or not _IS_HOST.fullmatch(host):
        raise ConfigError(f"{quoted(text)} is not a DNS name")
    return host


def is_below(host: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name equals one of the suffixes or is a subdomain of a suffix."""
    return any(host == suffix or host.endswith(f".{suffix}") for suffix in suffixes)
