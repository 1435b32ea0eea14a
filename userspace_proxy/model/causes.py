"""Why clients of a Service aren't served, or an endpoint isn't used: one value for all observers.

A cause is created where the fact is known, and worded once (``policy.causes``). The page, JSON,
text, metrics, Events and the log show that value, never words of their own.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class CauseCode(enum.StrEnum):
    """The names of causes in metrics, JSON and docs/troubleshooting.md; they never change."""

    ENDPOINT_REFUSES = "endpoint-refuses"
    ENDPOINT_SILENT = "endpoint-silent"
    ENDPOINT_UNREACHABLE = "endpoint-unreachable"
    ENDPOINT_NO_HOST = "endpoint-no-host"
    """On the endpoint's link no host has its address: ARP or neighbour discovery isn't answered."""
    ENDPOINT_RESETS = "endpoint-resets"
    """It accepts connections and ends them without having sent a byte."""
    ENDPOINT_SENDS_NOTHING = "endpoint-sends-nothing"
    """It accepts connections, and sends nothing until the clients give up."""
    ENDPOINT_ANSWERS_LATE = "endpoint-answers-late"
    """Its first byte comes after the clients have given up."""
    ENDPOINT_DENIES = "endpoint-denies"
    """It answers this node, or other clients, and doesn't answer some clients."""
    ENDPOINT_CUTS_OFF = "endpoint-cuts-off"
    """It resets connections after it has sent bytes."""
    PACKETS_LOST = "packets-lost"
    """Behind the handshake, packets to or from an endpoint, or to a client, don't arrive."""
    ENDPOINT_FAILS = "endpoint-fails"
    """A dial failed with another error."""
    ENDPOINT_NOT_ALLOWED = "endpoint-not-allowed"
    """Its address is this node's, or reserved (CVE-2021-25737)."""
    NAME_NOT_ALLOWED = "name-not-allowed"
    """The operator doesn't allow the name of an endpoint, or not as many."""
    NAME_UNRESOLVED = "name-unresolved"
    """DNS has no address for the name of an endpoint, or none now."""
    NO_SLICE = "no-slice"
    SLICE_EMPTY = "slice-empty"
    SLICE_ELSEWHERE = "slice-elsewhere"
    """A slice of another namespace names a Service of this name."""
    SLICE_ORPHANED = "slice-orphaned"
    """A slice names a Service that doesn't exist, and whose name is similar."""
    PORT_NAME_MISSING = "port-name-missing"
    NOT_READY = "not-ready"
    NOT_LOCAL = "not-local"
    NOT_FOR_THIS_NODE = "not-for-this-node"
    """Topology hints send this node's clients to other endpoints."""
    SOURCE_DENIED = "source-denied"
    NO_PROXY_HEADER = "no-proxy-header"
    """A client that ``--accept-proxy-protocol`` contains sends no PROXY header."""
    HOP_LIMIT = "hop-limit"
    """Datagrams of clients arrive with a hop limit (TTL) that is used up."""
    EXTERNAL_IP_OFF = "external-ip-off"
    ADDRESS_TAKEN = "address-taken"
    NOT_OURS = "not-ours"
    """This proxy doesn't serve such Services or ports."""
    NOT_FOLLOWED = "not-followed"
    """A field or annotation has no effect."""
    TOO_MANY_ENDPOINTS = "too-many-endpoints"
    TOO_MANY_FRONTENDS = "too-many-frontends"
    """A Service, or those of a namespace, have too many ports and addresses."""
    NOT_LISTENING = "not-listening"
    """A proxy port or node port can't be opened, or a frontend can't be steered to it."""
    FAULT_ON_PURPOSE = "fault-on-purpose"
    """A call, a toxiproxy client or an annotation asked for a fault, and it is in force."""
    OUT_OF_PORTS = "out-of-ports"
    OUT_OF_CLIENT_PORTS = "out-of-client-ports"
    FIREWALL_DROPS = "firewall-drops"
    SOURCE_AWAY = "source-away"
    """The API server or the manifests can't be read."""

    def __reduce_ex__(self, _protocol: object) -> tuple[Any, ...]:
        # Python 3.11.2 looks a member up by its name; one of _missing_ has none that it knows.
        return CauseCode, (str(self),)

    @classmethod
    def _missing_(cls, value: object) -> CauseCode:
        """Return the code of a newer proxy, whose JSON this one reads; it has no other name."""
        code = str.__new__(cls, value)
        code._name_ = code._value_ = str(value)
        return code


@dataclass(frozen=True, slots=True)
class Taken:
    """That a chain of another program takes the packets of a frontend's clients."""

    what: str
    hint: str = ""
    """What to do about it."""
    chain: str = ""
    """Family, table and name."""

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class Doubt(Taken):
    """That it may take them, or takes those of some clients."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause; equal facts give equal causes."""

    code: CauseCode
    sentence: str
    """Without a full stop, and without figures that change while the fact stays the same."""
    object: str = ""
    """What it is about: an address, ``shop/web``, ``EndpointSlice shop/web-x``; or empty."""
    hint: str = ""
    """What to do about it; empty if the sentence contains it."""
    count: int = 0
    """How often it was seen; 0 for a state, which isn't counted."""
    first_at: float = 0.0
    """Unix time at which it was first seen; 0 if unknown."""
    last_at: float = 0.0
    """Unix time at which it was last seen; 0 if unknown."""

    def __str__(self) -> str:
        return self.sentence
