"""What all invariants have in common: they look at what happens in one run, and now and then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ...machine.machine import Process
    from ...network import Address
    from ..clients import Client
    from ..world import World


class Invariant:
    """One invariant of one run; what it has no use for, it leaves out."""

    NAME: ClassVar[str]

    def __init__(self, world: World) -> None:
        self._world = world

    def check(self, is_right: bool, what: str) -> None:
        """Judge."""
        self._world.judgements.check(self.NAME, is_right, what)

    def client_changed(self, client: Client, was: str) -> None:
        """Look at what has become of a client."""

    def led_to_port(self, client: Address, to: Address, number: int, *, is_tcp: bool) -> None:
        """Look at a client that the kernel leads to a port of the node."""

    def refused(self, code: int) -> None:
        """Look at a transaction that the kernel has refused; 0: it was to fail."""

    def dying(self, process: Process) -> None:
        """Look at a process that dies, while what it had is there."""

    def look(self) -> None:
        """Look at all, from time to time."""

    def check_rest(self) -> None:
        """Look at a node at which nothing has happened for long."""

    def check_clients(self, clients: Sequence[Client]) -> None:
        """Look at clients that came at rest, and had time for it."""

    def check_removed(self) -> None:
        """Look at a node some time after all Services were removed."""

    def check_end(self) -> None:
        """Look at what an agent leaves that has ended in order."""
