"""Judges whether a client may use a Service port, by its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..facts import Level
from ..model import contains

if TYPE_CHECKING:
    from ..facts import PortFacts


def admits(port: PortFacts, client: str) -> bool:
    """Return whether packets of a client reach the proxy."""
    return port.admits is None or contains(port.admits, client)


def say_client(port: PortFacts, client: str) -> tuple[Level, str]:
    """Return whether a client of the port's family is admitted, and why."""
    if admits(port, client):
        outside = f"; {port.policy}" if port.policy else ""
        who = "every client is" if port.admits is None else "its network is"
        return Level.OK, f"{client} is admitted: {who}{outside}"
    if port.is_dropping:
        return Level.ATTENTION, f"Packets from {client} are dropped: {port.state.sentence}"
    networks = ", ".join(port.admits or ()) or "no network"
    return Level.ATTENTION, f"Packets from {client} are dropped: only {networks} is admitted"
