"""Decides which frontends are translated at connect(), and the map elements for them.

    frontend ─▶ service: number, slots ─▶ slot 0 … n ─▶ endpoint: address, number ─▶ counters
                                      └─▶ by the endpoint's number, for clients with affinity

Rule 1: a service never changes. New slots require a new service, to which frontends are switched
one by one, each atomically.
Rule 2: an endpoint of a Service port keeps its number and counters while it belongs to the port, or
a connection to it is open. The number is never reused.
Rule 3: choices by the client's address aren't offloaded: at connect(), the socket may have no
address yet.
Rule 4: half of each map stays free, so that old and new elements fit at the same time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from ...kernel.bpf.objects import MapSpec
from ...model import Frontend, IPFamily, PortKey, Protocol, SocketAddress, is_loopback
from ..base import Affinity, KernelTarget, Target
from .socket_maps import (
    DialCounts,
    EjectionScope,
    FrontendValue,
    SlotValue,
    frontend_key,
    number_key,
    pinned_slot_key,
    slot_key,
)

SLOTS_MAX = 4096
"""The maximum number of slots per service, so that a Service with many endpoints can't fill the
maps."""
FRONTENDS4, FRONTENDS6, SLOTS, COUNTERS = "frontends4", "frontends6", "slots", "counters"
FRONTENDS = (FRONTENDS4, FRONTENDS6)
LED = (SLOTS, *FRONTENDS)
"""The maps whose elements are the desired state, in the order in which they are written."""
NO_COUNTS = DialCounts().pack()
_NOT_IN_KERNEL = "it isn't on the kernel path"
_FULL = "the maps of the hooks are full"
_LINK_LOCAL = ("169.254.", "fe8", "fe9", "fea", "feb")

At = tuple[PortKey, SocketAddress]
"""A Service port, and one of its endpoints."""


def not_offloaded_reason(frontend: Frontend, target: Target | None) -> str:
    """Return why a frontend isn't offloaded; empty if it is translated at connect()."""
    if not isinstance(target, KernelTarget) or not target.is_on:
        return _NOT_IN_KERNEL
    if frontend.protocol is not Protocol.TCP:
        return "a socket of UDP would stay with its endpoint when that is gone"
    if frontend.last:
        return "it is a range of ports"
    if target.affinity is not None and target.affinity.is_of_pods:
        return "it shares affinity entries with other ports"
    if not target.choices:
        return "it has no endpoint"
    if target.by_client:
        return "its clients' addresses choose the endpoint"
    endpoints, networks = target.choices[0]
    if networks is not None:
        return "its clients' addresses decide who may use which endpoint"
    if len(endpoints) > SLOTS_MAX:
        return f"it has more than {SLOTS_MAX} endpoints, by weight"
    return _addresses_reason(frontend, endpoints)


def _addresses_reason(frontend: Frontend, endpoints: Iterable[SocketAddress]) -> str:
    if any(endpoint.family is not frontend.family for endpoint in endpoints):
        return "an endpoint is of another family"
    for ip in (frontend.ip, *(endpoint.ip for endpoint in endpoints)):
        if is_loopback(ip) or ip.startswith(_LINK_LOCAL):
            return f"{ip} is another host for each network namespace"
    return ""


def spread(endpoints: Collection[SocketAddress]) -> tuple[SocketAddress, ...]:
    """Return endpoints in an order that distributes repeated endpoints evenly."""
    shares = dict.fromkeys(endpoints, 0.0)
    if len(shares) == len(endpoints):
        return tuple(endpoints)
    for one in endpoints:
        shares[one] += 1
    seen = dict.fromkeys(shares, 0)
    places: list[tuple[float, int, SocketAddress]] = []
    for at, one in enumerate(endpoints):
        places.append(((seen[one] + 0.5) / shares[one], at, one))
        seen[one] += 1
    return tuple(one for _, _, one in sorted(places))


class Hooked(NamedTuple):
    """The definition of a service in the maps; frontends with equal definitions share a service."""

    name: PortKey
    endpoints: tuple[SocketAddress, ...]
    """The endpoint of each slot."""
    affinity: Affinity | None


def _made_of(target: KernelTarget) -> Hooked:
    return Hooked(target.name, spread(target.choices[0].endpoints), target.affinity)


def _is_on_as(frontend: Frontend, target: Target | None, hooked: Hooked) -> bool:
    """Return whether a target would have this service if the target were on the kernel path."""
    if not isinstance(target, KernelTarget):
        return False
    on = replace(target, is_on=True)
    return not not_offloaded_reason(frontend, on) and _made_of(on) == hooked


class FoundService(NamedTuple):
    """A frontend's entries in the maps when this process started."""

    value: FrontendValue
    slots: tuple[SlotValue, ...]

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of the affinity and the endpoints."""
        yield self.value.affinity
        yield from (slot.number for slot in self.slots)


class Room(NamedTuple):
    """The maximum number of elements of each kind."""

    frontends: int
    """The maximum number of frontends per IP family."""
    slots: int
    endpoints: int

    @classmethod
    def of(cls, maps: Mapping[str, MapSpec]) -> Room:
        """Return half of the maps' capacity."""
        return cls(*(maps[name].entries // 2 for name in (FRONTENDS4, SLOTS, COUNTERS)))


@dataclass(slots=True)
class Edits:
    """Changes of elements in ``counters`` and the maps of ``LED``."""

    put: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    removed: dict[str, list[bytes]] = field(default_factory=dict)
    readmitted: list[bytes] = field(default_factory=list)
    """The keys of removed endpoints' ejections for all clients, which must be deleted. Other
    ejections of these endpoints are harmless, because numbers aren't reused."""


@dataclass(slots=True)
class _Number:
    number: int
    services: int = 0
    """The number of services that have the endpoint or the affinity."""


# An affinity's key includes the IP family, because otherwise the affinity entry of a dual-stack
# client would alternate between endpoints of both families.
_OfAffinity = tuple[str, IPFamily]


@dataclass(slots=True)
class _Service:
    value: FrontendValue
    keys: list[bytes]
    """The keys of the service's slots."""
    affinity: _OfAffinity | None
    frontends: int = 0
    """The number of frontends that point to the service."""


class DesiredHooks:
    """The desired map elements of one proxy, and the numbers assigned for them."""

    def __init__(self, room: Room) -> None:
        self.elements: dict[str, dict[bytes, bytes]] = {name: {} for name in LED}
        """The desired elements: values by map and key."""
        self.at: dict[int, At] = {}
        """Endpoints with counters, by number."""
        self.next_number = 1
        """The next number to assign to an endpoint or an affinity."""
        self._room = room
        self._last_service = 0
        self._found: dict[SocketAddress, FoundService] = {}
        self._hooked: dict[Frontend, Hooked] = {}
        self._left: dict[Frontend, str] = {}
        self._services: dict[Hooked, _Service] = {}
        self._used: set[int] = set()
        self._numbers: dict[At, _Number] = {}
        self._without_service: dict[int, None] = {}
        """Removed endpoints that may have open connections, by number; :meth:`next_without_service`
        moves the numbers that it returns to the end."""
        self._affinities: dict[_OfAffinity, _Number] = {}

    @property
    def frontends(self) -> int:
        return len(self._hooked)

    def not_offloaded(self, frontend: Frontend) -> str:
        """Return why a frontend isn't translated at connect(); empty if it is."""
        return "" if frontend in self._hooked else self._left.get(frontend, _NOT_IN_KERNEL)

    def adopt(
        self, found: Mapping[SocketAddress, FoundService], services: Iterable[int], next_number: int
    ) -> None:
        """Record an earlier process's elements and its service numbers, before the first change."""
        self._found = dict(found)
        self._last_service = max(services, default=0)
        # The settings contain the next number, but another program may have reset them, so also
        # skip all numbers in use.
        used = (n for one in found.values() for n in one.numbers())
        self.next_number = max(next_number, 1 + max(used, default=0))

    def hooked(self) -> Collection[Frontend]:
        return self._hooked.keys()

    def leaving(self, affected: Mapping[Frontend, Target | None]) -> dict[Frontend, Target | None]:
        """Return the new targets of frontends whose translation must end before the rules change.

        Frontends that only leave the kernel path are excluded: until the rules steer to the proxy,
        hooks can avoid failing endpoints, but rules can't.
        """
        return {
            frontend: target
            for frontend, target in affected.items()
            if (hooked := self._hooked.get(frontend)) is not None
            and not_offloaded_reason(frontend, target)
            and not _is_on_as(frontend, target, hooked)
        }

    def replace(self, wanted: Mapping[Frontend, Target]) -> Edits:
        """Accept a complete new state; return the changes."""
        affected: dict[Frontend, Target | None] = dict.fromkeys((*self._hooked, *self._left))
        affected.update(wanted)
        edits = self.change(affected)
        self._found = {}
        return edits

    def change(self, affected: Mapping[Frontend, Target | None]) -> Edits:
        """Accept new targets, None for frontends no longer steered; return the changes."""
        edits = Edits()
        for frontend, target in affected.items():
            before = self._hooked.pop(frontend, None)
            self._left.pop(frontend, None)
            hooked, why = self._accept(frontend, target, before, edits)
            if hooked is not None:
                self._hooked[frontend] = hooked
            elif target is not None:
                self._left[frontend] = why
            if before is not None and hooked != before:
                self._release(before, edits)
                if hooked is None:
                    name, key = _key(frontend)
                    del self.elements[name][key]
                    edits.removed.setdefault(name, []).append(key)
        return edits

    def counters(self) -> dict[bytes, bytes]:
        """Return the initial elements of ``counters``."""
        return dict.fromkeys(map(number_key, list(self.at)), NO_COUNTS)

    def number_of(self, at: At) -> int | None:
        """Return an endpoint's number; None if it has none."""
        known = self._numbers.get(at)
        return None if known is None else known.number

    @property
    def without_service(self) -> int:
        """The number of removed endpoints that may have open connections."""
        return len(self._without_service)

    def next_without_service(self, count: int) -> list[int]:
        """Return up to ``count`` numbers of removed endpoints; further calls cycle through all."""
        numbers = list(islice(self._without_service, count))
        for number in numbers:
            del self._without_service[number]
            self._without_service[number] = None
        return numbers

    def forget(self, numbers: Iterable[int]) -> Edits:
        """Forget the numbers of removed endpoints; return the edits that remove their counters."""
        edits = Edits()
        for number in numbers:
            del self._numbers[self.at.pop(number)]
            del self._without_service[number]
            edits.removed.setdefault(COUNTERS, []).append(number_key(number))
            edits.readmitted.append(EjectionScope(number).pack())
        return edits

    def _accept(
        self, frontend: Frontend, target: Target | None, before: Hooked | None, edits: Edits
    ) -> tuple[Hooked | None, str]:
        why = not_offloaded_reason(frontend, target)
        if why or not isinstance(target, KernelTarget):
            return None, why
        hooked = _made_of(target)
        if hooked == before:
            return hooked, ""
        name, key = _key(frontend)
        service = self._services.get(hooked)
        if service is None:
            found = self._found.get(frontend.address)
            if found is not None:
                self._adopt_numbers(hooked, frontend, found)
            if not self._has_room(hooked):
                return None, _FULL
            service = self._make(hooked, frontend, found, edits)
        elements = self.elements[name]
        if key not in elements and len(elements) >= self._room.frontends:
            if not service.frontends:
                self._drop(hooked, edits)
            return None, _FULL
        service.frontends += 1
        elements[key] = edits.put.setdefault(name, {})[key] = service.value.pack()
        return hooked, ""

    def _has_room(self, hooked: Hooked) -> bool:
        new = sum((hooked.name, one) not in self._numbers for one in set(hooked.endpoints))
        slots = len(hooked.endpoints) * (1 if hooked.affinity is None else 2)
        return (
            len(self._numbers) + new <= self._room.endpoints
            and len(self.elements[SLOTS]) + slots <= self._room.slots
        )

    def _adopt_numbers(self, hooked: Hooked, frontend: Frontend, found: FoundService) -> None:
        for slot in found.slots:
            at = hooked.name, slot.address
            if at not in self._numbers and slot.number not in self.at:
                self._numbers[at] = _Number(slot.number)
                self._without_service[slot.number] = None
                self.at[slot.number] = at
        of_affinity = _affinity_of(hooked, frontend)
        if of_affinity is not None and found.value.affinity:
            self._affinities.setdefault(of_affinity, _Number(found.value.affinity))

    def _make(
        self, hooked: Hooked, frontend: Frontend, found: FoundService | None, edits: Edits
    ) -> _Service:
        slots = tuple(SlotValue(x, self._number_of(hooked, x, edits)) for x in hooked.endpoints)
        number = 0 if found is None or found.slots != slots else found.value.number
        if not number or number in self._used:
            number = self._next_service()
        self._used.add(number)
        value = FrontendValue(number, len(slots))
        new = {slot_key(number, at): slot.pack() for at, slot in enumerate(slots)}
        of_affinity = _affinity_of(hooked, frontend)
        if of_affinity is not None and hooked.affinity is not None:
            new |= {pinned_slot_key(number, slot.number): slot.pack() for slot in slots}
            if of_affinity not in self._affinities:
                self._affinities[of_affinity] = _Number(self._next())
            known = self._affinities[of_affinity]
            known.services += 1
            value = value._replace(affinity=known.number, timeout_s=hooked.affinity.timeout_s)
        for one in set(hooked.endpoints):
            of_endpoint = self._numbers[hooked.name, one]
            of_endpoint.services += 1
            self._without_service.pop(of_endpoint.number, None)
        self.elements[SLOTS] |= new
        edits.put.setdefault(SLOTS, {}).update(new)
        service = self._services[hooked] = _Service(value, list(new), of_affinity)
        return service

    def _number_of(self, hooked: Hooked, endpoint: SocketAddress, edits: Edits) -> int:
        at = hooked.name, endpoint
        known = self._numbers.get(at)
        if known is None:
            known = self._numbers[at] = _Number(self._next())
            self.at[known.number] = at
            edits.put.setdefault(COUNTERS, {})[number_key(known.number)] = NO_COUNTS
        return known.number

    def _next(self) -> int:
        self.next_number += 1
        return self.next_number - 1

    def _next_service(self) -> int:
        while True:
            self._last_service = self._last_service % (2**32 - 1) + 1
            if self._last_service not in self._used:
                return self._last_service

    def _release(self, hooked: Hooked, edits: Edits) -> None:
        service = self._services[hooked]
        service.frontends -= 1
        if not service.frontends:
            self._drop(hooked, edits)

    def _drop(self, hooked: Hooked, edits: Edits) -> None:
        service = self._services.pop(hooked)
        self._used.discard(service.value.number)
        for key in service.keys:
            del self.elements[SLOTS][key]
        edits.removed.setdefault(SLOTS, []).extend(service.keys)
        for endpoint in set(hooked.endpoints):
            known = self._numbers[hooked.name, endpoint]
            known.services -= 1
            if not known.services:
                self._without_service[known.number] = None
                edits.readmitted.append(EjectionScope(known.number).pack())
        if service.affinity is not None:
            known = self._affinities[service.affinity]
            known.services -= 1
            if not known.services:
                del self._affinities[service.affinity]


def _affinity_of(hooked: Hooked, frontend: Frontend) -> _OfAffinity | None:
    return None if hooked.affinity is None else (hooked.affinity.name, frontend.family)


def _key(frontend: Frontend) -> tuple[str, bytes]:
    return (FRONTENDS6 if ":" in frontend.ip else FRONTENDS4), frontend_key(frontend.address)
