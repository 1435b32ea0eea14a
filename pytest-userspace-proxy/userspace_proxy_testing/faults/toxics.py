"""Defines toxics as values: their effect on one direction's bytes, with toxiproxy's names.

As in toxiproxy, times are in milliseconds and rates in KB/s; a slicer's delay is in microseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

from userspace_proxy.errors import ConfigError
from userspace_proxy.model.quoting import quoted
from userspace_proxy.model.similar import did_you_mean

UPSTREAM, DOWNSTREAM = "upstream", "downstream"
STREAMS = (UPSTREAM, DOWNSTREAM)
_MAX = 2**53
_PERCENT_MAX = 100


@dataclass(frozen=True, slots=True)
class Toxic:
    """An effect on one direction; each type is a subclass."""

    TYPE: ClassVar[str] = ""
    NEEDED: ClassVar[Sequence[str]] = ()
    """At least one of these must be set: otherwise the toxic has no effect or stops all bytes."""

    def attributes(self) -> dict[str, int]:
        """Return the attributes by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Latency(Toxic):
    """Delays bytes by ``latency`` ± ``jitter``."""

    TYPE = "latency"
    NEEDED = ("latency", "jitter")
    latency: int = 0
    jitter: int = 0


@dataclass(frozen=True, slots=True)
class Bandwidth(Toxic):
    """Limits the rate to ``rate`` KB/s; 0 stops the bytes."""

    TYPE = "bandwidth"
    NEEDED = ("rate",)
    rate: int = 0


@dataclass(frozen=True, slots=True)
class SlowClose(Toxic):
    """Delays the end of the stream by ``delay``."""

    TYPE = "slow_close"
    NEEDED = ("delay",)
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Timeout(Toxic):
    """Drops all bytes, and closes the connection after ``timeout``, or never if it is 0."""

    TYPE = "timeout"
    timeout: int = 0


@dataclass(frozen=True, slots=True)
class ResetPeer(Toxic):
    """Resets the connection ``timeout`` after the client's first byte, or FIN if that is first.

    With ``at_connect``, the time starts when the connection is accepted.
    """

    TYPE = "reset_peer"
    timeout: int = 0
    at_connect: bool = False


@dataclass(frozen=True, slots=True)
class Slicer(Toxic):
    """Splits bytes into pieces of ``average_size`` ± ``size_variation``, ``delay`` µs apart."""

    TYPE = "slicer"
    NEEDED = ("average_size",)
    average_size: int = 0
    size_variation: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True)
class LimitData(Toxic):
    """Closes the connection after ``bytes`` bytes."""

    TYPE = "limit_data"
    NEEDED = ("bytes",)
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Loss(Toxic):
    """Drops ``percent`` of datagrams; UDP only."""

    TYPE = "loss"
    NEEDED = ("percent",)
    percent: int = 0


@dataclass(frozen=True, slots=True)
class Reorder(Toxic):
    """Sends ``percent`` of datagrams after the following datagram; UDP only."""

    TYPE = "reorder"
    NEEDED = ("percent",)
    percent: int = 0


TYPES: Mapping[str, type[Toxic]] = {
    toxic.TYPE: toxic
    for toxic in (Latency, Bandwidth, SlowClose, Timeout, ResetPeer, Slicer, LimitData)
}
UDP_TYPES: Mapping[str, type[Toxic]] = {toxic.TYPE: toxic for toxic in (Latency, Loss, Reorder)}


@dataclass(frozen=True, slots=True)
class NamedToxic:
    """A toxic for one direction, with its name and probability."""

    name: str
    stream: str
    """``upstream``: client to endpoint; ``downstream``: endpoint to client."""
    toxic: Toxic
    toxicity: float = 1.0
    """The share of connections (UDP: datagrams) that the toxic affects."""


def read_toxic(
    type_: str,
    attributes: Mapping[str, object],
    *,
    name: str = "",
    stream: str = DOWNSTREAM,
    toxicity: float = 1.0,
    types: Mapping[str, type[Toxic]] = TYPES,
) -> NamedToxic:
    """Parse a toxic.

    Args:
        attributes: Values by name; missing values are 0.
        name: The toxic's name; empty for ``type_stream``, as in toxiproxy.
        types: The types of toxics that the protocol supports.

    Raises:
        ConfigError: A type, attribute or value is invalid.
    """
    toxic = types.get(type_)
    if toxic is None:
        raise ConfigError(f"there is no toxic {quoted(type_)}", hint=_near(type_, types))
    known = [field.name for field in fields(toxic)]
    for key, value in attributes.items():
        if key not in known:
            raise ConfigError(f"toxic {type_} has no {quoted(key)}", hint=_near(key, known))
        if isinstance(getattr(toxic(), key), bool):
            if not isinstance(value, bool):
                what = f"toxic {type_}: {key}: {quoted(value)} is not true or false"
                raise ConfigError(what)
            continue
        highest = _PERCENT_MAX if key == "percent" else _MAX
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
            to = f" to {highest}" if highest != _MAX else ""
            raise ConfigError(
                f"toxic {type_}: {key}: {quoted(value)} is not a whole number from 0{to}"
            )
    if stream not in STREAMS:
        raise ConfigError(f"toxic {type_}: stream {quoted(stream)} is not upstream or downstream")
    if not _is_share(toxicity):
        raise ConfigError(f"toxic {type_}: toxicity {quoted(toxicity)} is not a number from 0 to 1")
    return NamedToxic(name or f"{type_}_{stream}", stream, toxic(**attributes), float(toxicity))


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _near(word: str, known: Collection[str]) -> str:
    return did_you_mean(word, known) or f"known: {', '.join(known)}"
