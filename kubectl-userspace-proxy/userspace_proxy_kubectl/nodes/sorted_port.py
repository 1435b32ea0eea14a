"""What a Service port of all nodes is sorted by."""

from __future__ import annotations

from userspace_proxy.facts import Level
from userspace_proxy.status.history import Figures

from .merged import MergedPort


class SortedPort:
    """As ``userspace_proxy.status.selection.Sortable``; what isn't asked for costs nothing."""

    __slots__ = ("_port", "rates")

    def __init__(self, port: MergedPort, rates: Figures) -> None:
        self._port = port
        self.rates = rates

    @property
    def name(self) -> tuple[str, ...]:
        return self._port.key

    @property
    def level(self) -> Level:
        return self._port.level

    @property
    def address(self) -> str:
        return self._port.address

    @property
    def ill_nodes(self) -> int:
        return self._port.ill

    @property
    def endpoints(self) -> int:
        return len(self._port.endpoints)

    @property
    def open(self) -> float:
        return self._port.sums.active

    @property
    def saved(self) -> float:
        return self._port.sums.saved

    @property
    def failed(self) -> float:
        return self._port.sums.failed
