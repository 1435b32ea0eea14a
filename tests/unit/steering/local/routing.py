"""Routing tables in memory, for the guards."""

from __future__ import annotations

from collections.abc import Sequence

from userspace_proxy.errors import SteeringError
from userspace_proxy.kernel.netlink.rtnetlink import TABLE_LOCAL, LocalRoute, RoutingRule
from userspace_proxy.steering.local.kernel import PROTOCOL, Item, LocalTable


class MemoryTables:
    """Routes and rules as sets; ``log`` has each change in its order."""

    def __init__(self) -> None:
        self.items: set[Item] = set()
        self.node_networks: set[str] = set()
        self.refused: set[Item] = set()
        self.log: list[str] = []

    def local_table(self) -> LocalTable:
        ours = {route for route, _ in self.routes(TABLE_LOCAL)}
        return LocalTable(ours, set(self.node_networks))

    def routes(self, table: int) -> list[tuple[LocalRoute, int]]:
        routes = (item for item in self.items if isinstance(item, LocalRoute))
        return [(route, PROTOCOL) for route in routes if route.table == table]

    def rules(self) -> set[RoutingRule]:
        return {item for item in self.items if isinstance(item, RoutingRule)}

    def change(
        self, *, added: Sequence[Item] = (), removed: Sequence[Item] = ()
    ) -> dict[Item, SteeringError]:
        for item in added:
            if item not in self.refused:
                assert item not in self.items
                self.items.add(item)
                self.log.append(f"+ {shown(item)}")
        for item in removed:
            if item in self.items:
                self.items.remove(item)
                self.log.append(f"- {shown(item)}")
        return {item: SteeringError("refused") for item in added if item in self.refused}


def shown(item: Item) -> str:
    """Return an item in the style of iproute2."""
    if isinstance(item, LocalRoute):
        source = f" src {item.source}" if item.source else ""
        return f"local {item.network}{source} metric {item.metric}"
    if item.ip_protocol:
        return f"{item.priority}: to {item.to} ipproto {item.ip_protocol} dport {item.port} lookup"
    return f"{item.priority}: to {item.to} prohibit"
