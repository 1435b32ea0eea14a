"""The contract of a guard: it routes addresses to this node, and rejects what isn't a frontend.

Rule 1: no address is routed here before it is guarded, and none loses its guard before its route:
daemons of the node must never be reachable at a Service's address.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

from ...errors import SteeringError
from ...model import Frontend
from .desired import DesiredState, StateChange


class LocalGuard(abc.ABC):
    """What one proxy has in the kernel of this thread's network namespace.

    Args:
        desired: What it should have there.
    """

    needs_transparent = False
    """As in :class:`~..base.Steering`."""

    def __init__(self, desired: DesiredState) -> None:
        self._desired = desired

    def unguarded(self) -> str:
        """Return :attr:`~..base.Steering.unguarded`."""
        return ""

    def is_touched(self) -> bool:
        """Return whether another program has changed it, apart from routes."""
        return False

    @abc.abstractmethod
    def change(self, change: StateChange) -> None:
        """Write a change of the desired state on top of what was written last.

        A network that the kernel refuses individually is added to ``desired.refused``.

        Raises:
            SteeringError: The kernel refused; some of it may be in force.
        """

    @abc.abstractmethod
    def put_right(self) -> int:
        """Compare the kernel in full with the desired state, and write what differs.

        Refused networks are retried; afterwards ``desired.refused`` contains those that still are.

        Returns:
            How many differences there were, without those in refused networks.

        Raises:
            SteeringError: The kernel refused; some of it may be in force.
        """

    @abc.abstractmethod
    def look(self) -> Callable[[Frontend], bool]:
        """Read the kernel; return a function that checks whether a frontend is as desired."""

    @abc.abstractmethod
    def clean_up(self) -> None:
        """Remove everything of this proxy; idempotent."""

    def close(self) -> None:  # noqa: B027 - most guards have no sockets
        """Close sockets; what is in force stays in force."""


class NoGuard(LocalGuard):
    """Refuses everything that needs a route: only the node's own addresses are served."""

    def change(self, change: StateChange) -> None:
        """Part of LocalGuard."""
        self.put_right()

    def put_right(self) -> int:
        """Part of LocalGuard."""
        self._desired.refused = {
            network: SteeringError(
                f"cannot route {network} to this node: NET_ADMIN is missing",
                hint="run as root or grant NET_ADMIN; loopback addresses need nothing",
            )
            for network in {*self._desired.networks, *self._desired.ranges}
        }
        return 0

    def look(self) -> Callable[[Frontend], bool]:
        """Part of LocalGuard."""
        return lambda frontend: not self._desired.is_routed(frontend.ip)

    def clean_up(self) -> None:
        """Part of LocalGuard; without privileges nothing was left."""
