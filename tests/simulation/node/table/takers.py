"""Chains of other programs that may take packets before the product does, and what is said of it.

Source: the docstrings of ``steering.base`` and ``model.Taken``; priorities are those of
docs/adr/0012.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.base import KernelTarget, Target

from ..nf_tables_others import Another, drop, translate_all
from ..nf_tables_state import INPUT, OUTPUT, PREROUTING
from .expecting import LEFTOVER_PORT

TABLE = "taker"
_TO_ENDPOINTS, _TO_PORTS = -111, -110


@dataclass(frozen=True)
class Taker:
    """One chain of another program."""

    kind: str
    """``nat``: it translates all TCP of IPv4. ``filter``: it drops everything."""
    hook: int
    priority: int

    @property
    def drops(self) -> bool:
        return self.kind == "filter"

    def concerns(self, frontend: Frontend) -> bool:
        """Return whether packets to a frontend may be taken, wherever it leads."""
        return self.drops or (frontend.protocol is Protocol.TCP and ":" not in frontend.ip)

    def takes(self, frontend: Frontend, target: Target | None) -> bool | None:
        """Return whether packets are certainly taken, or may be (False); None: they aren't."""
        if target is None or not self.concerns(frontend):
            return None
        is_to_endpoints = isinstance(target, KernelTarget) and target.is_on
        if self.drops:
            return None if self.hook == INPUT and is_to_endpoints else True
        own = _TO_ENDPOINTS if is_to_endpoints else _TO_PORTS
        # Of chains with one priority the kernel doesn't show which one comes first.
        return None if self.priority > own else self.priority < own

    def add(self, another: Another) -> None:
        """Have another program add it."""
        rule = drop() if self.drops else translate_all("10.1.0.1", LEFTOVER_PORT)
        code = another.add_table(TABLE, self.hook, self.priority, self.kind, rule)
        assert not code, os.strerror(code)


# The kernel refuses nat chains at or before -200, which is connection tracking.
TAKERS = (
    *(Taker("nat", PREROUTING, priority) for priority in (-199, -111, -110, -109)),
    Taker("nat", OUTPUT, -111),
    Taker("filter", PREROUTING, -150),
    Taker("filter", INPUT, 0),
)
