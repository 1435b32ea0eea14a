"""The base class of invariants, which observe the events of a run, and poll at intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ...machine.machine import Process
    from ...network import Address
    from ..clients import Client
    from ..world import World


class Invariant:
    """One invariant of one run; the methods of this class do nothing."""

    NAME: ClassVar[str]

    def __init__(self, world: World) -> None:
        self._world = world

    def check(self, is_right: bool, what: str) -> None:
        """Count a judgement, and record a violation."""
        self._world.judgements.check(self.NAME, is_right, what)

    def client_changed(self, client: Client, was: str) -> None:
        """Called when a client's state has changed."""

    def led_to_port(self, client: Address, to: Address, number: int, *, is_tcp: bool) -> None:
        """Called for a client that the kernel has sent to a port of the node."""

    def refused(self, code: int) -> None:
        """Called when the kernel has refused a transaction; ``code`` is 0 for a planned one."""

    def dying(self, process: Process) -> None:
        """Called before a process dies, while its resources exist."""

    def look(self) -> None:
        """Called at intervals."""

    def check_rest(self) -> None:
        """Called when nothing has happened at a node for a long time."""

    def check_clients(self, clients: Sequence[Client]) -> None:
        """Called with clients that dialled undisturbed, once they have had enough time."""

    def check_removed(self) -> None:
        """Called some time after all Services were removed."""

    def check_end(self) -> None:
        """Called after an agent has exited in an orderly way."""
