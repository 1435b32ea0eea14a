"""Local routes in the kernel that bear our name, read and changed by pyroute2.

Rule 1: every call blocks and belongs in one thread; none is made in an event loop.
Rule 2: a route is ours when its protocol number is :data:`ROUTE_PROTOCOL`.
Rule 3: pyroute2 is imported by the first call (0.25 s and 27 MiB), not before.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import SteeringConflict, SteeringError

# "u". The kernel keeps 1 to 4; iproute2's rt_protos names 8 to 18, 42, 84, 99, 186 to 192, and
# FRR adds 193 to 199. Nobody of them uses 117.
ROUTE_PROTOCOL = 117
# RTPROT_KERNEL: the kernel made it, for an address of an interface.
KERNEL_PROTOCOL = 2
TABLE_LOCAL = 255
TYPE_LOCAL = 2
FAMILIES = {4: 2, 6: 10}


class Route(NamedTuple):
    """A route that delivers a range to this node."""

    network: str
    """In canonical form with a prefix length: ``10.96.0.0/16``."""
    source: str | None = None
    """The address that clients on the node itself get, or None: the one they dial."""

    @property
    def version(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.network else 4


@dataclass(frozen=True, slots=True)
class LocalTable:
    """What the kernel's table ``local`` says."""

    ours: frozenset[Route]
    others: dict[str, int]
    """Ranges that somebody else delivers to this node, with the protocol number."""

    def covers(self, ip: str) -> bool:
        """Return whether packets to an address are delivered to this node."""
        address = ipaddress.ip_address(ip)
        networks = [route.network for route in self.ours] + list(self.others)
        return any(
            address in network
            for network in map(ipaddress.ip_network, networks)
            if network.version == address.version
        )


def read_local_table() -> LocalTable:
    """List what this network namespace delivers to itself."""
    ours: set[Route] = set()
    others: dict[str, int] = {}
    with _iproute() as ip:
        for version, family in FAMILIES.items():
            for route in ip.get_routes(family=family, table=TABLE_LOCAL, type=TYPE_LOCAL):
                network = f"{route.get('dst') or _ANY[version]}/{route['dst_len']}"
                if route["proto"] == ROUTE_PROTOCOL:
                    ours.add(Route(network, route.get("prefsrc")))
                else:
                    others[network] = route["proto"]
    return LocalTable(frozenset(ours), others)


def read_addresses() -> frozenset[str]:
    """List the addresses that interfaces have, both families."""
    with _iproute() as ip:
        return frozenset(message.get("address") for message in ip.get_addr())


def change_routes(remove: Iterable[Route], add: Iterable[Route]) -> None:
    """Remove some routes of ours and add others: all of it, or none.

    Raises:
        SteeringConflict: Somebody else has a route for one of these ranges.
        SteeringError: The kernel refused.
    """
    done: list[tuple[str, Route]] = []
    with _iproute() as ip:
        try:
            for verb, routes in (("add", add), ("del", remove)):
                for route in routes:
                    _change(ip, verb, route)
                    done.append((verb, route))
        except SteeringError:
            for verb, route in reversed(done):
                _change(ip, "add" if verb == "del" else "del", route)
            raise


_ANY = {4: "0.0.0.0", 6: "::"}


def _iproute() -> Any:
    from pyroute2 import IPRoute

    try:
        return IPRoute()
    except OSError as exc:
        raise SteeringError(f"cannot open a netlink socket: {exc.strerror}") from exc


def _change(ip: Any, verb: str, route: Route) -> None:
    from pyroute2.netlink.exceptions import NetlinkError

    fields: dict[str, Any] = {"prefsrc": route.source} if route.source else {}
    try:
        ip.route(
            verb,
            dst=route.network,
            family=FAMILIES[route.version],
            oif=1,  # lo is the first interface of every network namespace.
            type="local",
            scope="host" if route.version == 4 else "universe",
            table=TABLE_LOCAL,
            proto=ROUTE_PROTOCOL,
            **fields,
        )
    except NetlinkError as exc:
        if verb == "del" and exc.code == errno.ESRCH:
            return
        raise _explained(verb, route, exc.code, str(exc)) from exc


def _explained(verb: str, route: Route, code: int, text: str) -> SteeringError:
    what = f"cannot {'add' if verb == 'add' else 'remove'} local route {route.network}"
    if code == errno.EEXIST:
        return SteeringConflict(
            f"{what}: already routed by somebody else",
            hint=f"ip route show table local {route.network} tells by whom",
        )
    hints = {
        errno.EPERM: "grant NET_ADMIN, or run with --steering=none",
        errno.EACCES: "grant NET_ADMIN, or run with --steering=none",
        errno.ENETDOWN: "ip link set lo up",
    }
    return SteeringError(f"{what}: {text}", hint=hints.get(code, ""))
