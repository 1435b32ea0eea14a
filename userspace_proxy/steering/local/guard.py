"""The contract of a guard: it routes addresses to this node, and rejects what isn't a frontend.

Rule 1: nothing is brought here before it is guarded, and nothing loses its guard before it has
gone: daemons of the node are never to be reached at a Service's address.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

from ...model import Frontend
from .wanted import Difference, Wanted


class Guard(abc.ABC):
    """What one proxy has in the kernel of this thread's network namespace."""

    knows_connections = True
    """Whether it refuses new connections to a frontend without ending those that are open."""

    needs_transparent = False
    """As in :class:`~..base.Steering`."""

    unguarded = ""
    """As in :class:`~..base.Steering`."""

    @abc.abstractmethod
    def is_touched(self) -> bool:
        """Return whether somebody else has changed it, as far as routing events don't tell."""

    @abc.abstractmethod
    def change(self, difference: Difference, wanted: Wanted) -> None:
        """Write a difference on top of what was written last.

        A network that the kernel refuses for itself alone is noted in ``wanted.refused``.

        Raises:
            SteeringError: The kernel refused; some of it may be in force.
        """

    @abc.abstractmethod
    def put_right(self, wanted: Wanted) -> int:
        """Compare the kernel in full with what is wanted, and write what differs.

        Networks that were refused are tried again; ``wanted.refused`` says which still are.

        Returns:
            How many things differed, without what was or is refused.

        Raises:
            SteeringError: The kernel refused; some of it may be in force.
        """

    @abc.abstractmethod
    def look(self, wanted: Wanted) -> Callable[[Frontend], bool]:
        """Read the kernel; return what tells of a frontend whether it is in force as wanted."""

    @abc.abstractmethod
    def clean_up(self) -> None:
        """Remove all of this proxy; idempotent."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of sockets; what is in force stays in force."""
