"""Judges Service ports, each view once: most views are the same objects from sample to sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..plan import PortKey
from .port_state import PortState, judge
from .view import ServicePortView

Judge = Callable[[ServicePortView], PortState]
"""Returns the state of a Service port."""


class RememberingJudge:
    """Returns what :func:`judge` returns, and remembers it while a view stays the same object."""

    def __init__(self) -> None:
        self._known: dict[PortKey, tuple[ServicePortView, PortState]] = {}

    def __call__(self, port: ServicePortView) -> PortState:
        """Return the state of a Service port."""
        known = self._known.get(port.plan.key)
        if known is not None and known[0] is port:
            return known[1]
        state = judge(port)
        self._known[port.plan.key] = port, state
        return state

    def forget_others(self, ports: Sequence[ServicePortView]) -> None:
        """Forget Service ports that are gone."""
        if len(self._known) > len(ports):
            present = {port.plan.key for port in ports}
            self._known = {key: one for key, one in self._known.items() if key in present}
