"""One listener: what is asked for, what it is, and what came of asking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from ..errors import ListenError
from ..model import Protocol, SocketAddress
from .group import Group
from .messages import OpenListener
from .sockets import ListeningSockets


class Wanted(NamedTuple):
    """One listener that a group is to have."""

    protocol: Protocol
    addresses: Iterable[SocketAddress]
    """Where to bind: the first that can be had. Port 0 for any free one."""
    freebind: bool = False
    """Bind an address that this node doesn't have (yet)."""
    transparent: bool = False
    """Set IP_TRANSPARENT, which takes NET_ADMIN or NET_RAW."""


class Answer(NamedTuple):
    """What has become of the listeners that a group was to have."""

    listeners: dict[Hashable, Listener]
    """Those that are open, by the caller's keys; one that couldn't serve refuses."""
    errors: dict[Hashable, ListenError | None]
    """Why others aren't, or refuse; None: no address was left to try."""


class Listener:
    """One address that clients reach, served by one worker or several, or refusing.

    Args:
        key: The caller's name of it.
        number: Its name in messages.
        group: Chooses endpoints for its clients.
        protocol: TCP or UDP.
        sockets: One for each worker that serves it; the listener closes them.
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
        """Those that serve it."""
        self.numbers = [number]
        """Under which workers may hold its sockets: its own, and those of whose port it took."""
        self.address = sockets.at
        """Where it is bound, with the port that was chosen."""
        self.is_serving = True
        """False while clients are refused."""
        self.is_closed = False
        self.closing: Counter[int] = Counter()
        """How often each worker is yet to confirm that it has closed its copy of a UDP socket:
        until then the port is taken."""

    def opening(self) -> OpenListener:
        """Return the message by which a worker learns of it."""
        return OpenListener(
            self.number, self.group.number, self.protocol, self.address, self.is_serving
        )
