"""Local steering: the frontends' addresses are routed to this node and bound as they are.

    ip route add local 10.96.0.0/16 dev lo proto 117 src NODE

No NAT and no connection tracking: the listener sees the client's address and the one that
it dialled. A frontend without usable endpoints has no listener, so the kernel refuses.

Rule 1: only in a network namespace that we made. Elsewhere every daemon on 0.0.0.0 would
answer at every Service address. Source: kubernetes/kubernetes#72236.
Rule 2: the routes are those of the thread's namespace that calls ``start``, or the first
other method.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from ..errors import SteeringConflict, SteeringError
from ..model import Frontend, IPFamily
from . import routes
from .base import Bind, Steering, SteeringFacts, Target, render_targets
from .one_thread import OneThread
from .routes import LocalTable, Route


class LocalSteering(Steering):
    """Routes the Service ranges, or where nobody said them the frontends one by one.

    Args:
        facts: Of these the Service ranges and the node's addresses are used.
        own_namespace: Whether the network namespace was made by us, for this.
    """

    name = "local"
    bind = Bind.FRONTEND

    def __init__(self, facts: SteeringFacts, *, own_namespace: bool = False) -> None:
        self.facts = facts
        self._own_namespace = own_namespace
        self._targets: dict[Frontend, Target] | None = None
        # One thread: pyroute2's calls block, and a route never overtakes another.
        self._thread = OneThread("local-steering")

    async def start(self) -> Mapping[Frontend, int]:
        """Part of Steering; the kernel knows no proxy port, so nothing is recovered."""
        self._must_own_the_namespace()
        await self._thread.run(routes.read_local_table)
        return {}

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        """Part of Steering."""
        self._must_own_the_namespace()
        asked = dict(wanted)
        await self._thread.run(lambda: self._put_right(asked))
        self._targets = asked

    async def render(self) -> str:
        """Part of Steering; a frontend whose route is gone is left out."""
        table = await self._thread.run(routes.read_local_table)
        targets = self._targets or {}
        return render_targets({f: t for f, t in targets.items() if table.covers(f.ip)})

    async def repair(self) -> int:
        """Part of Steering."""
        targets = self._targets
        return 0 if targets is None else await self._thread.run(lambda: self._put_right(targets))

    async def clean_up(self) -> None:
        """Part of Steering."""
        await self._thread.run(_remove_all)
        self._targets = None

    async def close(self) -> None:
        """Part of Steering."""
        self._thread.close()

    def _must_own_the_namespace(self) -> None:
        if not self._own_namespace:
            raise SteeringError(
                "cannot use local steering on a node: every daemon on 0.0.0.0 would answer at "
                "every Service address",
                hint="run in a sandbox of our own, or with --steering=iptables",
            )

    def _put_right(self, frontends: Iterable[Frontend]) -> int:
        """Make the routes what these frontends need; return how many weren't."""
        addresses = routes.read_addresses()
        sources = [ip for ip in self.facts.node_addresses if ip in addresses]
        wanted = wanted_routes(self.facts.service_cidrs, frontends, sources)
        table = routes.read_local_table()
        missing = [route for route in sorted(wanted - table.ours) if not _is_theirs(route, table)]
        surplus = sorted(table.ours - wanted)
        if missing or surplus:
            _swap(missing, surplus)
        return len({route.network for route in (*missing, *surplus)})


def wanted_routes(
    cidrs: Iterable[str], frontends: Iterable[Frontend], sources: Iterable[str]
) -> set[Route]:
    """Return the routes that bring these frontends to this node.

    Args:
        cidrs: The Service ranges, each routed as a whole.
        frontends: Those outside the ranges get a route of their own, loopback aside.
        sources: Addresses of this node; the first one of a family is its routes' source.
    """
    source_of: dict[IPFamily, str] = {}
    for ip in sources:
        source_of.setdefault(IPFamily.of(ip), ip)
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    for ip in sorted({frontend.ip for frontend in frontends}):
        address = ipaddress.ip_address(ip)
        inside = any(n.version == address.version and address in n for n in networks)
        if not inside and not address.is_loopback:
            networks.append(ipaddress.ip_network(ip))
    return {Route(str(n), source_of.get(IPFamily(n.version))) for n in networks}


def _is_theirs(route: Route, table: LocalTable) -> bool:
    """Return whether the node has this range already, as an interface's own address.

    Raises:
        SteeringConflict: Another program routes it.
    """
    protocol = table.others.get(route.network)
    if protocol is None:
        return False
    if protocol != routes.KERNEL_PROTOCOL:
        raise SteeringConflict(
            f"cannot route {route.network} here: already routed by protocol number {protocol}",
            hint="stop the program that routes it, or run with --steering=none",
        )
    return True


def _swap(missing: list[Route], surplus: list[Route]) -> None:
    """Change the routes; one whose source changes has to go before it comes."""
    networks = {route.network for route in missing}
    renewed = [route for route in surplus if route.network in networks]
    if renewed:
        routes.change_routes(remove=renewed, add=())
    routes.change_routes(
        remove=[route for route in surplus if route.network not in networks], add=missing
    )


def _remove_all() -> None:
    ours = routes.read_local_table().ours
    if ours:
        routes.change_routes(remove=sorted(ours), add=())
