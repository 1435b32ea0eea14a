"""Defines the types of injected faults: toxics, and faults that a toxic can't express."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from userspace_proxy.errors import ConfigError
from userspace_proxy.model.addresses import Protocol
from userspace_proxy.model.quoting import quoted
from userspace_proxy.model.similar import did_you_mean

from .toxics import TYPES, UDP_TYPES, Toxic

FAIL_FIRST = "fail_first"
LISTENER_TYPES = ("refuse", "silent", "half_open", FAIL_FIRST)
"""Faults that act before the first byte is forwarded; TCP only."""
_TYPES_OF = {
    Protocol.TCP: (*TYPES, *LISTENER_TYPES),
    Protocol.UDP: tuple(UDP_TYPES),
}


def protocols_of(type_: str) -> frozenset[Protocol]:
    """Return the protocols that support a fault of this type."""
    return frozenset(protocol for protocol, known in _TYPES_OF.items() if type_ in known)


def check_type(type_: str, protocol: Protocol) -> None:
    """Raise ConfigError unless the protocol supports this type; TypeError unless it is a string."""
    if not isinstance(type_, str):
        raise TypeError(f"fault: expected a name such as 'latency', got {type_!r}")
    known = _TYPES_OF[protocol]
    if type_ in known:
        return
    other = Protocol.TCP if protocol is Protocol.UDP else Protocol.UDP
    if type_ in _TYPES_OF[other]:
        raise ConfigError(f"fault {type_} is for {other} only")
    hint = did_you_mean(type_, known) or f"known: {', '.join(known)}"
    raise ConfigError(f"there is no fault {quoted(type_)}", hint=hint)


@dataclass(frozen=True, slots=True)
class FirstResets:
    """The number of next connections to reset, and when to reset them."""

    count: int
    at_connect: bool = False
    """Whether clients are reset at the connect, instead of at their first byte."""


def check_listener_fault(type_: str, attributes: Mapping[str, object]) -> FirstResets | None:
    """Parse the attributes of ``fail_first``; return None for other types of listener faults.

    Raises:
        ConfigError: An attribute is missing, unknown or invalid.
    """
    is_first = type_ == FAIL_FIRST
    needed = {"count"} if is_first else set()
    known = {"count", "at_connect"} if is_first else set()
    if not needed <= attributes.keys() <= known:
        hint = "give count=N" if is_first else "it takes none"
        raise ConfigError(f"fault {type_}: attributes {quoted(sorted(attributes))}", hint=hint)
    if not is_first:
        return None
    count, at_connect = attributes["count"], attributes.get("at_connect", False)
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(f"fault {type_}: count: {quoted(count)} is not a whole number from 1")
    if not isinstance(at_connect, bool):
        raise ConfigError(f"fault {type_}: at_connect: {quoted(at_connect)} is not true or false")
    return FirstResets(count, at_connect)


def check_given(toxic: Toxic, attributes: Mapping[str, object]) -> None:
    """Raise ConfigError if a test gave none of the attributes that a fault needs.

    Clients of toxiproxy's API may omit attributes, which are then 0.
    """
    needed = toxic.NEEDED
    if needed and attributes.keys().isdisjoint(needed):
        raise ConfigError(
            f"fault {toxic.TYPE}: no {' or '.join(needed)} is given", hint=f"give {needed[0]}=N"
        )
