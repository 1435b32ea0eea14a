"""What a drift has changed: where clients are led before and after it, and by which elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from userspace_proxy.model import Frontend

from ..conntrack_entries import packed_ip
from ..nf_tables_state import DYNAMIC, Table
from .drifting import OF_ELEMENTS, OF_LOOK_UPS
from .plan import CLIENTS, FRONTENDS, Client


class Picture(NamedTuple):
    """Where clients are led, and by which elements of the product's sets."""

    led: dict[tuple[Frontend, Client], list[str]]
    elements: set[tuple[str, str, bytes, bytes]]


class Drifted(NamedTuple):
    """What another program's change has done."""

    led: dict[tuple[Frontend, Client], set[str]]
    """The clients that are led elsewhere now."""
    by_elements: set[Frontend]
    """Frontends of which an element is another one, or gone."""
    is_of_elements: bool
    loses_look_ups: bool


def take(led: Callable[[Frontend, Client], list[str]], tables: Iterable[Table]) -> Picture:
    """Return the picture of now.

    Args:
        led: Returns where a client is led, for each draw.
        tables: The product's.
    """
    places = {
        (frontend, client): led(frontend, client)
        for frontend in FRONTENDS
        for client in CLIENTS
        if client.version == (6 if ":" in frontend.ip else 4)
    }
    elements = {
        (table.name, one.name, element.key, element.value)
        for table in tables
        for one in table.sets.values()
        if not one.is_anonymous and not one.flags & DYNAMIC
        for element in one.elements.values()
    }
    return Picture(places, elements)


def difference(before: Picture, now: Picture, name: str) -> Drifted:
    """Return what a drift of some kind has changed."""
    led = {place: set(some) for place, some in now.led.items() if some != before.led[place]}
    keys = [key for *_, key, _value in before.elements ^ now.elements]
    by_elements = {
        one
        for one in FRONTENDS
        for key in keys
        if packed_ip(one.ip) in key and one.port.to_bytes(2, "big") in key
    }
    return Drifted(led, by_elements, name in OF_ELEMENTS, name in OF_LOOK_UPS)
