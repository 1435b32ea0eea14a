"""Endpoints by name: what objects ask for, what DNS answered, and the slices that follow from both.

    annotation of a Service ─┐
    slice of names (FQDN) ───┴─▶ NameSlice ──lookups (cluster.from_names)──▶ ResolvedSlice

Rule 1: a name is a DNS name, never an address: an address in its place is an error.
Rule 2: a name is absolute, whatever the search list of the node.
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
"""Names of one Service that are looked up: more than the replicas of any database."""
HOST_MAX = 253
"""Characters of a name without the dot at its end. Source: RFC 1035, 255 bytes on the wire."""
# With underscores, which names of hosts mustn't have and some have.
_LABEL = r"[a-z0-9_](?:[-a-z0-9_]{0,61}[a-z0-9_])?"
_IS_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A host whose addresses are endpoints of a Service port."""

    host: str
    """In lower case, without a dot at its end."""
    port: int
    """At which the host is dialled."""
    port_name: str = ""
    """That of the Service port; empty: the Service's only one."""


@dataclass(frozen=True, slots=True)
class NameSlice(EndpointSlice):
    """A slice of names instead of addresses: it has no endpoints, and its family means nothing."""

    named: tuple[Endpoint, ...] = ()
    """As endpoints, each with a name in place of its address."""

    @staticmethod
    def of(item: EndpointSlice) -> NameSlice:
        """Return the slice of names that a slice is in which names are in place of addresses."""
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
    """Why the addresses of a name aren't endpoints, or not as DNS answers now."""

    NOT_ALLOWED = "not allowed"
    """The operator hasn't allowed the name."""
    NETWORKS_UNKNOWN = "networks unknown"
    """Which addresses are those of pods is unknown, so no name is looked up."""
    NODES_UNKNOWN = "nodes unknown"
    """The same for those of Nodes."""
    TOO_MANY = "too many"
    PENDING = "pending"
    """It has not been looked up yet."""
    UNRESOLVED = "unresolved"
    STALE = "stale"
    """It no longer resolves, and its last addresses are used."""
    FORBIDDEN = "forbidden"
    """One of its addresses must not be dialled."""
    NO_ADDRESS = "no address"
    """It has addresses, but none of this family."""


_NEVER_LOOKED_UP = (NameState.NOT_ALLOWED, NameState.NETWORKS_UNKNOWN, NameState.TOO_MANY)


@dataclass(frozen=True, slots=True)
class NameProblem:
    """One problem of one name; equal facts give equal problems."""

    host: str
    state: NameState
    detail: str = ""
    """What DNS answered, or which address is meant, as a clause."""
    since: float = 0.0
    """Monotonic seconds at which it began; 0 if unknown."""


@dataclass(frozen=True, slots=True)
class ResolvedSlice(EndpointSlice):
    """The addresses of one name and family, as endpoints."""

    problems: tuple[NameProblem, ...] = ()

    @property
    def needs_nodes(self) -> bool:
        """Whether its endpoints depend on which addresses Nodes have."""
        return not any(problem.state in _NEVER_LOOKED_UP for problem in self.problems)


class Lookup(NamedTuple):
    """What DNS answered about one name."""

    addresses: Mapping[IPFamily, tuple[str, ...]]
    """Sorted; without a family about which no server answered."""
    ttl_s: float = 0.0
    """How long the addresses are valid."""
    why: str = ""
    """Why there is no address, as a clause; empty if there is one."""


def read_endpoint_names(text: str) -> tuple[EndpointName, ...]:
    """Return the value of the annotation ``endpoints``: ``db.example.com:5432,…``.

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
    """Return a DNS name in lower case, without a dot at its end.

    Raises:
        ConfigError: It is none, or an address.
    """
    host = text.lower().removesuffix(".") if len(text) <= HOST_MAX + 1 else ""
    if ":" in text or host.rpartition(".")[2].isdigit():
        raise ConfigError(f"{quoted(text)} is not a DNS name: addresses belong in EndpointSlices")
    if len(host) > HOST_MAX or not _IS_HOST.fullmatch(host):
        raise ConfigError(f"{quoted(text)} is not a DNS name")
    return host


def is_below(host: str, suffixes: tuple[str, ...]) -> bool:
    """Return whether a name is one of these, or below one of them."""
    return any(host == suffix or host.endswith(f".{suffix}") for suffix in suffixes)
