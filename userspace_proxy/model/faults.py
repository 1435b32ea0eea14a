"""Faults on purpose as values: a toxic, or what a toxic can't do; and their text in annotations.

latency(latency=100, jitter=20); refuse@10.244.0.7; loss(percent=5, toxicity=0.5)
TYPE[(ATTRIBUTE=NUMBER, …)][@ENDPOINT], separated by semicolons
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import ConfigError
from .addresses import Protocol, SocketAddress, parse_ip
from .quoting import quoted
from .similar import did_you_mean
from .toxics import DOWNSTREAM, TYPES, UDP_TYPES, read_toxic

FAIL_FIRST = "fail_first"
LISTENER_TYPES = ("refuse", "silent", "half_open", FAIL_FIRST)
"""What happens to connections before a byte is passed on; TCP only."""
_TYPES_OF = {
    Protocol.TCP: (*TYPES, *LISTENER_TYPES),
    Protocol.UDP: tuple(UDP_TYPES),
}
_ALL_TYPES = tuple(dict.fromkeys((*_TYPES_OF[Protocol.TCP], *_TYPES_OF[Protocol.UDP])))
# No two parts that can match the same text are adjacent, so the time is linear. For text without
# white space around it.
_FORM = re.compile(r"([\w-]+)\s*(?:\(([^()]*)\)\s*)?(?:@\s*(\S+))?")
_STREAM, _TOXICITY = "stream", "toxicity"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a Service."""

    type: str
    """A toxic of toxiproxy, one of ``LISTENER_TYPES``, or one of UDP's."""
    attributes: tuple[tuple[str, int], ...] = ()
    """By name, in the order in which they were given."""
    stream: str = DOWNSTREAM
    toxicity: float = 1.0
    endpoint: str = ""
    """An IP address, or ``ip:port``; empty: all endpoints."""

    def is_for(self, protocol: Protocol) -> bool:
        """Return whether connections of a protocol can have it."""
        return self.type in _TYPES_OF[protocol]

    def affects(self, endpoint: SocketAddress) -> bool:
        """Return whether an endpoint has it."""
        return self.endpoint in ("", endpoint.ip, str(endpoint))


def check_type(type_: str, protocol: Protocol | None = None) -> None:
    """Raise ConfigError unless there is such a fault, for a protocol or any."""
    known = _ALL_TYPES if protocol is None else _TYPES_OF[protocol]
    if type_ in known:
        return
    if protocol is not None and type_ in _ALL_TYPES:
        other = Protocol.TCP if protocol is Protocol.UDP else Protocol.UDP
        raise ConfigError(f"fault {type_} is for {other} only")
    hint = did_you_mean(type_, known) or f"known: {', '.join(known)}"
    raise ConfigError(f"there is no fault {quoted(type_)}", hint=hint)


def check_listener_fault(type_: str, attributes: Mapping[str, object]) -> int:
    """Return how many connections a fault of ``LISTENER_TYPES`` is for; 0: all.

    Raises:
        ConfigError: An attribute is missing, unknown or invalid.
    """
    wanted = {"count"} if type_ == FAIL_FIRST else set()
    if attributes.keys() != wanted:
        hint = "give count=N" if wanted else "it takes none"
        raise ConfigError(f"fault {type_}: attributes {quoted(sorted(attributes))}", hint=hint)
    count = attributes.get("count", 0)
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
        raise ConfigError(f"fault {type_}: count: {quoted(count)} is not a whole number from 0")
    return count


def read_faults(text: str) -> tuple[Fault, ...]:
    """Return the faults in a text such as ``latency(latency=100, jitter=20); refuse@10.0.0.7``.

    Raises:
        ConfigError: One of them has another form, or there is no such fault or attribute.
    """
    return tuple(_read(part) for part in text.split(";") if part.strip())


def _read(text: str) -> Fault:
    text = text.strip()
    form = _FORM.fullmatch(text)
    if form is None:
        raise ConfigError(f"{quoted(text)} is not TYPE(ATTRIBUTE=NUMBER, …)[@ENDPOINT]")
    type_, listed, endpoint = form.groups()
    check_type(type_)
    attributes, stream, toxicity = _read_attributes(type_, listed or "")
    if type_ in LISTENER_TYPES:
        if stream is not None or toxicity is not None:
            raise ConfigError(f"fault {type_} has no {_STREAM} and no {_TOXICITY}")
        check_listener_fault(type_, attributes)
    else:
        types = TYPES if type_ in TYPES else UDP_TYPES
        read_toxic(
            type_,
            attributes,
            stream=stream or DOWNSTREAM,
            toxicity=1.0 if toxicity is None else toxicity,
            types=types,
        )
    return Fault(
        type_,
        tuple(attributes.items()),
        stream=stream or DOWNSTREAM,
        toxicity=1.0 if toxicity is None else toxicity,
        endpoint=_read_endpoint(endpoint) if endpoint else "",
    )


def _read_attributes(type_: str, text: str) -> tuple[dict[str, int], str | None, float | None]:
    """Return attributes, stream and toxicity; None where one isn't given."""
    attributes: dict[str, int] = {}
    stream: str | None = None
    toxicity: float | None = None
    for pair in filter(None, map(str.strip, text.split(","))):
        name, _, value = (word.strip() for word in pair.partition("="))
        if name == _STREAM:
            stream = value
            continue
        try:
            if name == _TOXICITY:
                toxicity = float(value)
            else:
                attributes[name] = int(value)
        except ValueError:
            raise ConfigError(
                f"fault {type_}: {quoted(name)}: {quoted(value)} is not a number"
            ) from None
    return attributes, stream, toxicity


def _read_endpoint(text: str) -> str:
    """Return an IP address, or one with a port, in canonical form."""
    try:
        return parse_ip(text)
    except ValueError:
        host, _, port = text.rpartition(":")
    try:
        ip = parse_ip(host.removeprefix("[").removesuffix("]"))
        if port.isdecimal() and 0 < int(port) < 65536:
            return str(SocketAddress(ip, int(port)))
    except ValueError:
        pass
    raise ConfigError(f"endpoint {quoted(text)} is not an IP address, or one with a port")
