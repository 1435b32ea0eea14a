"""Proxy ports that stay guarded for a while after the last frontend has left them.

    packet ─▶ nat, old rules: to port 36001 ─▶ guard, new rules: 36001 isn't a proxy port ─▶ socket

A packet that the old rules have translated may meet the new guard. If a port left the guard with
its last frontend, any program that has bound it meanwhile, say after a crash of the proxy, would
get that client.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Port = TypeVar("Port")


class ReleasedPorts(Generic[Port]):
    """Such ports, in the form of one steering's guard, until the second repair from then on."""

    def __init__(self) -> None:
        self._recent: set[Port] = set()
        self._earlier: set[Port] = set()

    def __iter__(self) -> Iterator[Port]:
        return iter(self._recent | self._earlier)

    def add(self, ports: Iterable[Port]) -> None:
        """Keep ports guarded; those in use may be among them."""
        self._recent.update(ports)

    def end_round(self) -> set[Port]:
        """Return the ports that need no guard any more; called once by each repair."""
        ended = self._earlier - self._recent
        self._earlier, self._recent = self._recent, set()
        return ended
