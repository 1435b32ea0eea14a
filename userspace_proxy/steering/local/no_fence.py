"""No fence: without privileges, only loopback and the node's own addresses are served."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SteeringError
from ...model import Frontend
from .fence import Fence
from .wanted import Difference, Wanted


class NoFence(Fence):
    """Refuses whatever needs a route."""

    def is_touched(self) -> bool:
        """Part of Fence."""
        return False

    def change(self, difference: Difference, wanted: Wanted) -> None:
        """Part of Fence."""
        self.put_right(wanted)

    def put_right(self, wanted: Wanted) -> int:
        """Part of Fence."""
        wanted.refused = {
            network: SteeringError(
                f"cannot route {network} to this node: NET_ADMIN is missing",
                hint="run as root or grant NET_ADMIN; loopback addresses need nothing",
            )
            for network in {*wanted.networks, *wanted.ranges}
        }
        return 0

    def look(self, wanted: Wanted) -> Callable[[Frontend], bool]:
        """Part of Fence."""
        return lambda frontend: not wanted.is_ours(frontend.ip)

    def clean_up(self) -> None:
        """Part of Fence; who may change nothing has left nothing."""

    def close(self) -> None:
        """Part of Fence."""
