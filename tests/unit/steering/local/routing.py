"""In-memory routing tables for the guards."""

from __future__ import annotations

from collections.abc import Sequence

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink.rtnetlink import TABLE_LOCAL, LocalRoute
from userspace_proxy.steering.local.kernel import PROTOCOL, LocalTable


class MemoryTables:
    """The routing tables of a node as a set of routes."""

    def __init__(self) -> None:
        self.items: set[LocalRoute] = set()
        self.node_networks: set[str] = set()
        self.refused: set[LocalRoute] = set()

    def local_table(self) -> LocalTable:
        ours = {route for route, _ in self.routes(TABLE_LOCAL)}
        return LocalTable(ours, set(self.node_networks))

    def routes(self, table: int) -> list[tuple[LocalRoute, int]]:
        return [(route, PROTOCOL) for route in self.items if route.table == table]

    def change(
        self, *, added: Sequence[LocalRoute] = (), removed: Sequence[LocalRoute] = ()
    ) -> dict[LocalRoute, SteeringError]:
        for item in added:
            if item not in self.refused:
                assert item not in self.items
                self.items.add(item)
        for item in removed:
            self.items.discard(item)
        return {item: SteeringError("refused") for item in added if item in self.refused}
