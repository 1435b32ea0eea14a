"""How the clients of one group are served, as one immutable value."""

from __future__ import annotations

import msgspec

from ..model import Balance, SocketAddress


class Serving(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a Service port's plan that sockets need; workers get it as it is."""

    endpoints: tuple[SocketAddress, ...] = ()
    """Usable endpoints, in the order of their turns."""
    affinity_timeout_s: float | None = None
    """Seconds of ClientIP affinity; None for none."""
    outside: tuple[SocketAddress, ...] | None = None
    """The endpoints of clients that aren't ``inside``; None: all clients have the same."""
    inside: tuple[str, ...] = ()
    """Networks of the cluster's own clients."""
    admits: tuple[str, ...] | None = None
    """Networks whose packets come in; those of others are dropped. None: all; empty: none."""
    balance: Balance = Balance.ROUND_ROBIN
    keeps_clients: bool = True
    """Endpoints may see their clients' own addresses, where answers come back by this node."""

    @property
    def is_refusing(self) -> bool:
        """Whether clients are refused: no client has an endpoint, and none is dropped."""
        return not self.endpoints and not self.outside and self._drops_none

    @property
    def all_endpoints(self) -> tuple[SocketAddress, ...]:
        """Every endpoint that a client may be sent to."""
        return tuple(dict.fromkeys((*self.endpoints, *(self.outside or ()))))

    @property
    def _drops_none(self) -> bool:
        return self.admits is None or len(self.admits) > 0
