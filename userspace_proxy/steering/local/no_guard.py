"""No guard: without privileges, only loopback and the node's own addresses are served."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SteeringError
from ...model import Frontend
from .guard import Guard
from .wanted import Difference, Wanted


class NoGuard(Guard):
    """Refuses whatever needs a route."""

    def is_touched(self) -> bool:
        """Part of Guard."""
        return False

    def change(self, difference: Difference, wanted: Wanted) -> None:
        """Part of Guard."""
        self.put_right(wanted)

    def put_right(self, wanted: Wanted) -> int:
        """Part of Guard."""
        wanted.refused = {
            network: SteeringError(
                f"cannot route {network} to this node: NET_ADMIN is missing",
                hint="run as root or grant NET_ADMIN; loopback addresses need nothing",
            )
            for network in {*wanted.networks, *wanted.ranges}
        }
        return 0

    def look(self, wanted: Wanted) -> Callable[[Frontend], bool]:
        """Part of Guard."""
        return lambda frontend: not wanted.is_ours(frontend.ip)

    def clean_up(self) -> None:
        """Part of Guard; who may change nothing has left nothing."""

    def close(self) -> None:
        """Part of Guard."""
