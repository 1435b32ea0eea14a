"""What the situations of a plan of control processes are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from random import Random
from typing import ClassVar

from userspace_proxy.model import Protocol

from .plan import ServicePlan


class Situations:
    """Draws the situations of one plan.

    Args:
        calm_at: When that plan's calm begins.
    """

    FIRST_CLIENT: ClassVar[int]
    """The number of the first client of these situations: each kind has its own."""

    def __init__(self, rng: Random, services: Sequence[ServicePlan], calm_at: float) -> None:
        self._rng = rng
        self._calm_at = calm_at
        self._numbers = range(len(services))
        self._tcp = [n for n in self._numbers if services[n].protocol is Protocol.TCP]
        self._clients = count(self.FIRST_CLIENT)
