"""Invariants for the users of a node: the docstring of each module states its guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .answers import Answers
from .base import Invariant
from .endpoints import Endpoints
from .established import Established
from .health import Health
from .in_force import InForce
from .kernel_takes import KernelTakes
from .last_state import LastStates
from .leftovers import Leftovers
from .nothing_held import NothingHeld
from .others import Others
from .requests import Requests
from .status import Status
from .steering import Steering

if TYPE_CHECKING:
    from ...machine.machine import Process
    from ...network import Address
    from ..clients import Client
    from ..world import World

_ALL = (
    Endpoints,
    Answers,
    Established,
    Steering,
    InForce,
    KernelTakes,
    Others,
    Leftovers,
    Status,
    Health,
    Requests,
    LastStates,
    NothingHeld,
)
ORACLES = tuple(each.NAME for each in _ALL)
_LOOK_S = 0.25


class Invariants:
    """The invariants of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all: list[Invariant] = [each(world) for each in _ALL]
        self._look_at = 0.0

    def client_changed(self, client: Client, was: str) -> None:
        if not self._world.is_finishing:
            for each in self._all:
                each.client_changed(client, was)

    def led_to_port(self, client: Address, to: Address, number: int, *, is_tcp: bool) -> None:
        for each in self._all:
            each.led_to_port(client, to, number, is_tcp=is_tcp)

    def refused(self, code: int) -> None:
        for each in self._all:
            each.refused(code)

    def dying(self, process: Process) -> None:
        for each in self._all:
            each.dying(process)

    def after_step(self) -> None:
        """Check all invariants at intervals."""
        if self._world.timeline.now >= self._look_at:
            self._look_at = self._world.timeline.now + _LOOK_S
            for each in self._all:
                each.look()

    def check_rest(self) -> None:
        for each in self._all if not self._world.machine.violations else ():
            each.check_rest()

    def check_clients(self, clients: Sequence[Client]) -> None:
        for each in self._all if not self._world.machine.violations else ():
            each.check_clients(clients)

    def check_removed(self) -> None:
        for each in self._all if not self._world.machine.violations else ():
            each.check_removed()

    def check_end(self) -> None:
        for each in self._all if not self._world.machine.violations else ():
            each.check_end()
