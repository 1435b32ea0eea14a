"""How the clients of one group are served, as one immutable value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..model import Balance, SocketAddress


@dataclass(frozen=True, slots=True)
class Serving:
    """What a Service port's plan says, as far as sockets are concerned."""

    endpoints: Sequence[SocketAddress] = ()
    """Usable endpoints, in the order of their turns."""
    affinity_timeout_s: float | None = None
    """Seconds of ClientIP affinity; None for none."""
    outside: Sequence[SocketAddress] | None = None
    """The endpoints of clients that aren't ``inside``; None: all have the same."""
    inside: Sequence[str] = ()
    """Networks of the cluster's own clients."""
    admits: Sequence[str] | None = None
    """Networks whose packets come in; those of others are dropped. None: all; empty:
    none."""
    balance: Balance = Balance.ROUND_ROBIN
    keeps_clients: bool = True
    """Endpoints may see their clients' own addresses, where answers come back by this node."""

    @property
    def is_refusing(self) -> bool:
        """Whether clients are refused: there is no endpoint for any, and none are dropped."""
        return not self.endpoints and not self.outside and self._drops_nobody

    @property
    def all_endpoints(self) -> tuple[SocketAddress, ...]:
        """Every endpoint that some client may be sent to."""
        return tuple(dict.fromkeys((*self.endpoints, *(self.outside or ()))))

    @property
    def _drops_nobody(self) -> bool:
        return self.admits is None or len(self.admits) > 0
