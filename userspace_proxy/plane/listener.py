"""One listener of the plane: what is wanted, what it is, and the outcome."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from ..errors import ListenError
from ..model import Protocol, SocketAddress
from .group import Group
from .listening_sockets import ListeningSockets
from .messages import OpenListener


class Wanted(NamedTuple):
    """A listener that a group is to have."""

    protocol: Protocol
    addresses: Iterable[SocketAddress]
    """The first that can be bound is used; port 0 is any free one."""
    freebind: bool = False
    """Bind an address that this node doesn't have (yet)."""
    transparent: bool = False
    """Set IP_TRANSPARENT, which takes NET_ADMIN or NET_RAW."""


class Answer(NamedTuple):
    """The outcome for the wanted listeners of a group, by the caller's keys."""

    listeners: dict[Hashable, Listener]
    """Those that are open; one that can't serve refuses."""
    errors: dict[Hashable, ListenError | None]
    """Why others aren't open, or refuse; None: no address was left to try."""


class Listener:
    """One address that clients dial, served by one worker or several, or refusing.

    The caller identifies it by its key, messages by its number. It closes its sockets, one for each
    worker that serves it.
    """

    def __init__(
        self,
        key: Hashable,
        number: int,
        group: Group,
        protocol: Protocol,
        sockets: ListeningSockets,
    ) -> None:
        self.key = key
        self.number = number
        self.group = group
        self.protocol = protocol
        self.sockets = sockets
        self.workers = tuple(sockets.by_worker)
        """Indexes of the workers that serve it."""
        self.numbers = [number]
        """Under which workers may hold its sockets: its own, and those of a listener whose port it
        took over."""
        self.address = sockets.at
        """Where it is bound, with the port that was chosen."""
        self.is_serving = True
        """False while clients are refused."""
        self.is_closed = False
        self.closing: Counter[int] = Counter()
        """How many confirmations of CloseListener each worker owes; a UDP port stays in use until
        none is left."""

    def opening(self, number: int) -> OpenListener:
        """Return the message that opens it in a worker under this number."""
        return OpenListener(number, self.group.number, self.protocol, self.address)
