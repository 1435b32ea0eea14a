"""Parses the annotations of Services and EndpointSlices that this proxy supports.

Rule 1: an invalid value has no effect and is reported as a note of the Service or the slice.
Rule 2: an unknown annotation that was probably meant for this proxy (a typo) is also reported.
Rule 3: a value longer than ``TEXT_MAX`` is invalid and isn't parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ConfigError
from .durations import parse_duration
from .endpoint_names import read_endpoint_names
from .endpoints import DEFAULT_WEIGHT
from .handling import (
    DEFAULT_HANDLING,
    Balance,
    DataPath,
    Handling,
    Hold,
    ProxyProtocol,
    Workload,
    WorkloadKind,
)
from .notes import Note, NoteKind
from .port_ranges import read_port_ranges
from .quoting import quoted, shown
from .similar import nearest
from .syntax import check_subdomain
from .wire import FieldError

DOMAIN = "userspace-proxy.io/"
# Match only the beginning of the domain, because its end may be misspelt.
_PREFIX = "userspace-proxy"
_COUNT = re.compile(r"\d{1,9}", re.ASCII)
_UNKNOWN_NAMED_MAX = 5
TEXT_MAX = 4096
"""The maximum length of an annotation in characters: longer than any useful value.

The API server accepts 256 KiB for all annotations of an object."""
# The longest wait and the longest slow start, in seconds: after an hour, a client has given up.
HOLD_MAX_S = 3600.0
SLOW_START_MAX_S = 3600.0
WITHOUT_SLOW_START = "it has no effect with balance source-hash"
# The maximum number of clients in the annotation ``hold``: a worker has descriptors for that many
# connections (``dataplane.descriptors``).
HOLD_MAX = 100_000
# The maximum value of ``max-connections``: more connections than a node can have.
CONNECTIONS_MAX = 1_000_000
# The maximum idle time before scaling to zero, in seconds. An autoscaler's cooldown takes minutes;
# a day without clients isn't a mere pause.
IDLE_AFTER_MAX_S = 86400.0
_ASLEEP = "nothing is woken"
_AWAKE = "nothing is scaled to zero"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation, and the field of :class:`Handling` that it sets."""

    name: str
    """The annotation's name without the domain."""
    field: str
    read: Callable[[str], Any]
    """Parses the text; raises ConfigError."""
    otherwise: str
    """The effect of an invalid value, as the end of a sentence."""

    @property
    def key(self) -> str:
        """The key in ``metadata.annotations``."""
        return DOMAIN + self.name


def one_of(words: Mapping[str, object]) -> Callable[[str], Any]:
    """Return a function that parses one of these words, and raises ConfigError for others."""

    def read(text: str) -> Any:
        if text not in words:
            raise ConfigError(f"{quoted(text)} is not one of {', '.join(words)}")
        return words[text]

    return read


def read_hold(text: str) -> Hold:
    """Parse ``hold``: a duration, optionally with a comma and a number. Raises ConfigError."""
    duration, comma, number = text.partition(",")
    seconds = _read_time(duration.strip(), HOLD_MAX_S, "1h")
    return Hold(seconds, _read_count(number, HOLD_MAX)) if comma else Hold(seconds)


def read_max_connections(text: str) -> int:
    """Parse ``max-connections``. Raises ConfigError."""
    return _read_count(text, CONNECTIONS_MAX)


def _read_count(text: str, most: int) -> int:
    text = text.strip()
    if not _COUNT.fullmatch(text) or not 1 <= int(text) <= most:
        raise ConfigError(f"{quoted(text)} is not a number in 1–{most}")
    return int(text)


def read_workload(text: str) -> Workload:
    """Parse ``wake``: ``deployment/NAME`` or ``statefulset/NAME``. Raises ConfigError."""
    kind, _, name = text.partition("/")
    try:
        workload = Workload(WorkloadKind(kind), name)
        check_subdomain(name, "name")
    except (ValueError, FieldError):
        hint = "write deployment/NAME or statefulset/NAME"
        raise ConfigError(f"{quoted(text)} is not a workload", hint=hint) from None
    return workload


def read_idle_after(text: str) -> float:
    """Parse ``idle-after``, a duration, to seconds. Raises ConfigError."""
    return _read_time(text, IDLE_AFTER_MAX_S, "24h")


def read_removal(text: str) -> float | None:
    """Parse ``on-endpoint-removal``: ``keep`` to None, durations to seconds. Raises ConfigError."""
    return None if text == "keep" else parse_duration(text)


def read_slow_start(text: str) -> float:
    """Parse ``slow-start``, a duration, to seconds. Raises ConfigError."""
    return _read_time(text, SLOW_START_MAX_S, "1h")


def _read_time(text: str, most_s: float, most: str) -> float:
    seconds = parse_duration(text)
    if not 1 <= seconds <= most_s:
        raise ConfigError(f"{quoted(text)} is not in 1s–{most}")
    return seconds


ANNOTATIONS = (
    Annotation(
        "balance",
        "balance",
        one_of({balance.value: balance for balance in Balance}),
        "round-robin is used",
    ),
    Annotation(
        "preserve-client-address",
        "keeps_clients",
        one_of({"auto": True, "never": False}),
        "auto is used",
    ),
    Annotation(
        "max-connections", "max_connections", read_max_connections, "endpoints have no limit"
    ),
    Annotation("hold", "hold", read_hold, "clients are refused while no endpoint is usable"),
    Annotation(
        "slow-start", "slow_start_s", read_slow_start, "new endpoints get full shares at once"
    ),
    Annotation("wake", "wake", read_workload, _ASLEEP),
    Annotation("idle-after", "idle_after_s", read_idle_after, _AWAKE),
    Annotation("on-endpoint-removal", "removal_s", read_removal, "connections continue"),
    Annotation(
        "proxy-protocol",
        "proxy_protocol",
        one_of({version.value: version for version in ProxyProtocol}),
        "no header is sent",
    ),
    Annotation(
        "path",
        "path",
        one_of({path.value: path for path in DataPath}),
        "the flag --path decides",
    ),
    Annotation("endpoints", "names", read_endpoint_names, "no endpoint is found by name"),
    Annotation(
        "port-ranges", "port_ranges", read_port_ranges, "only the Service's own ports are served"
    ),
    Annotation(
        "affinity-scope",
        "shares_affinity",
        one_of({"port": False, "service": True}),
        "each port has its own affinity entries",
    ),
)
"""All annotations; a test compares them with docs/services.md."""

SERVICE_KEYS = tuple(annotation.key for annotation in ANNOTATIONS)
ANNOTATION_WEIGHT = DOMAIN + "weight"
ANNOTATION_PRIORITY = DOMAIN + "priority"
SLICE_KEYS = (ANNOTATION_WEIGHT, ANNOTATION_PRIORITY)
_SLICES = "EndpointSlices"


def read_handling(annotations: Mapping[str, str | None]) -> tuple[Handling, tuple[Note, ...]]:
    """Parse a Service's annotations; the notes name annotations without effect.

    An empty value means the same as a missing annotation.
    """
    fields: dict[str, Any] = {}
    notes: list[Note] = []
    for annotation in ANNOTATIONS:
        text = annotations.get(annotation.key)
        if not text:
            continue
        try:
            _check_length(text)
            fields[annotation.field] = annotation.read(text)
        except ConfigError as exc:
            notes.append(NoteKind.ANNOTATION_WRONG(annotation.key, str(exc), annotation.otherwise))
    if fields.get("balance") is Balance.SOURCE_HASH and fields.pop("slow_start_s", None):
        notes.append(NoteKind.SLOW_START_UNUSED())
    handling = Handling(**fields) if fields else DEFAULT_HANDLING
    if handling.wake is not None and handling.hold is None:
        notes.append(NoteKind.WAKE_WITHOUT_HOLD(_ASLEEP))
    if handling.idle_after_s is not None and handling.wake is None:
        notes.append(NoteKind.IDLE_WITHOUT_WAKE(_AWAKE))
    return handling, (*notes, *unknown_notes(annotations, SERVICE_KEYS, SLICE_KEYS, _SLICES))


def _check_length(text: str) -> None:
    if len(text) > TEXT_MAX:
        raise ConfigError(f"it has {len(text)} characters, and at most {TEXT_MAX} are read")


def unknown_notes(
    annotations: Mapping[str, str | None],
    known: Collection[str],
    others: Collection[str] = (),
    of_others: str = "",
) -> tuple[Note, ...]:
    """Return notes about unsupported annotations probably meant for this proxy, at most five.

    Args:
        known: Keys that are supported on objects of this kind.
        others: Keys that are supported only on objects of another kind.
        of_others: The other kind, in the plural.
    """
    notes: list[Note] = []
    names = [key.removeprefix(DOMAIN) for key in known]
    for key in annotations:
        if not key.startswith(_PREFIX) or key in known:
            continue
        if len(notes) == _UNKNOWN_NAMED_MAX:
            break
        if key in others:
            notes.append(NoteKind.ANNOTATION_MISPLACED(key, of_others))
            continue
        near = nearest(key.rpartition("/")[2], names)
        meant = f"{DOMAIN}{near}" if near else ""
        notes.append(NoteKind.ANNOTATION_UNKNOWN(shown(key), meant, tuple(known)))
    return tuple(notes)


# Source: Cilium, pkg/annotation: EndpointSliceWeight, an unsigned 16-bit number.
ANNOTATION_CILIUM_WEIGHT = "service.cilium.io/weight"
WEIGHT_MAX = 65535
"""The highest weight, and the highest priority."""


class Preference(NamedTuple):
    """The settings in the annotations of a slice or an Endpoints object."""

    weight: int = DEFAULT_WEIGHT
    priority: int = 0
    notes: tuple[Note, ...] = ()
    """Annotations that have no effect."""


_NO_PREFERENCE = Preference()


def read_preference(annotations: Mapping[str, str | None] | None) -> Preference:
    """Return the weight and priority of an object's endpoints; an empty value counts as missing."""
    if not annotations:
        return _NO_PREFERENCE
    notes: list[Note] = []
    weight = _read_number(annotations, ANNOTATION_WEIGHT, notes)
    if weight is None:
        weight = _read_number(annotations, ANNOTATION_CILIUM_WEIGHT, notes)
    priority = _read_number(annotations, ANNOTATION_PRIORITY, notes)
    return Preference(
        DEFAULT_WEIGHT if weight is None else weight,
        priority or 0,
        (*notes, *unknown_notes(annotations, SLICE_KEYS, SERVICE_KEYS, "Services")),
    )


def _read_number(annotations: Mapping[str, str | None], key: str, notes: list[Note]) -> int | None:
    text = annotations.get(key)
    if not text:
        return None
    if (
        text.isascii()
        and text.isdecimal()
        and len(text) <= len(str(WEIGHT_MAX))
        and int(text) <= WEIGHT_MAX
    ):
        return int(text)
    why = f"{quoted(text)} is not in 0–{WEIGHT_MAX}"
    notes.append(NoteKind.ANNOTATION_WRONG(key, why, "it has no effect"))
    return None
