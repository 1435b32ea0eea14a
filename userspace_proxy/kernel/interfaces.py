"""Finds interfaces that have no IPv4 address, and the addresses of the other interfaces.

REDIRECT in PREROUTING translates to the address of the incoming interface, and drops the packet if
this interface has no address, as with Calico, Cilium and AWS.

Rule 1: reading requires a dump of all interfaces, so it happens only after netlink events, and
while events continue, only as often as ``node_listings`` allows.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from pathlib import Path

from ..clocks import Clocks
from ..errors import shortage_hint
from ..model import Frontend, IPFamily
from ..model.node_network import Taken
from .netlink import Events, explained, rtnetlink
from .netlink.rtnetlink import ListedLink
from .netlink.sockets import NETLINK_ROUTE
from .node_listings import NodeListings

_GROUPS = (rtnetlink.GROUP_LINK, rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6)
# An address of TEST-NET-1 (RFC 5737), for a route look-up; nothing is sent.
_ELSEWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True, slots=True)
class InterfaceView:
    """A snapshot of the interface state that steering needs."""

    unnumbered: tuple[str, ...] = ()
    """Names of interfaces that are up and lack the IPv4 address that they need, sorted."""
    addresses: tuple[str, ...] = ()
    """Global IPv4 addresses of the node, in the kernel's order."""
    here: frozenset[str] = frozenset()
    """All addresses of both families, including loopback and link-local addresses."""


NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""The kernel's errors for an IPv6 address if IPv6 is disabled, or not compiled in."""
NO_IPV6_HINT = "sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0"
"""How to enable IPv6."""


def not_forwarding(net: Path = Path("/proc/sys/net")) -> dict[IPFamily, str]:
    """Return the IP families whose packets this node doesn't forward, each with the reason."""
    sysctls = {IPFamily.IPV4: "ipv4/ip_forward", IPFamily.IPV6: "ipv6/conf/all/forwarding"}
    return {
        family: f"net.{name.replace('/', '.')} is 0"
        for family, name in sysctls.items()
        if _is_zero(net / name)
    }


def _is_zero(setting: Path, if_unreadable: bool = False) -> bool:
    try:
        return setting.read_text(encoding="ascii").strip() == "0"
    except FileNotFoundError:
        # The node has no IPv6, or the interface was removed after it was listed.
        return False
    except OSError:
        return if_unreadable


def without_ipv6(
    frontends: Iterable[Frontend], conf: Path = Path("/proc/sys/net/ipv6/conf")
) -> dict[Frontend, Taken]:
    """Return the IPv6 frontends if IPv6 is disabled on this node, each with cause and remedy.

    The frontends' rules are applied but have no effect, because no interface has an IPv6 address.
    """
    if _has_ipv6(conf):
        return {}
    return {
        frontend: Taken(f"cannot steer {frontend}: IPv6 is switched off on this node", NO_IPV6_HINT)
        for frontend in frontends
        if frontend.family is IPFamily.IPV6
    }


def _has_ipv6(conf: Path) -> bool:
    try:
        # Cost: this runs every second, and the first file nearly always decides.
        # A process without free descriptors can't read it, and the kernel has IPv6 nevertheless.
        return _is_zero(conf / "all/disable_ipv6", if_unreadable=True) or any(
            _is_zero(interface / "disable_ipv6") for interface in conf.iterdir()
        )
    except OSError:
        return False


class PreroutingAddress:
    """Chooses this node's address for DNAT in PREROUTING, if REDIRECT doesn't work everywhere.

    Args:
        preferred: The node's own addresses, best first.

    Raises:
        SteeringError: No netlink socket is available.
    """

    def __init__(self, preferred: tuple[str, ...]) -> None:
        self._preferred = preferred
        with explained("watch interfaces"), contextlib.ExitStack() as opened:
            self._events = Events(NETLINK_ROUTE, _GROUPS)
            opened.callback(self._events.close)
            self._listings = NodeListings.here()
            opened.pop_all()
        self._view = InterfaceView()
        self._is_current = False
        self._lost: set[IPFamily] = set()

    def has_changed(self) -> bool:
        """Read netlink events; return whether interfaces may have changed since :meth:`choose`.

        The families of removed addresses are recorded for :meth:`take_lost`.

        Raises:
            SteeringError: Events can't be read.
        """
        with explained("watch interfaces"):
            batch = self._events.read()
        if batch:
            self._is_current = False
            # Clients may have used an address that was added and removed since the last read, so
            # count it as lost.
            gone = (one for one in batch.messages if one.kind == rtnetlink.DEL_ADDRESS)
            self._note_lost(rtnetlink.read_address(one).ip for one in gone)
        if batch.has_lost:
            self._lost.update(IPFamily)
        return not self._is_current

    def choose(self, current: str) -> str:
        """Return the address for DNAT; empty for REDIRECT.

        DNAT is kept while its address exists: it works for all interfaces, and switching whenever
        pods are added or removed would rewrite all rules each time.

        Args:
            current: The address that the applied rules use; empty for REDIRECT.

        Raises:
            SteeringError: Events can't be read, interfaces can't be listed, or no socket is left.
        """
        is_current = not self.has_changed()
        if not is_current:
            before = self._view.here
            with explained("list interfaces"):
                self._view, is_current = read_interfaces(self._listings, Clocks.monotonic())
            self._note_lost(before - self._view.here)
        chosen = self._chosen(current)
        # Set this last, so that a failure is retried.
        self._is_current = is_current
        return chosen

    @property
    def here(self) -> frozenset[str]:
        """The node's addresses as of the last :meth:`choose`; empty before the first call."""
        return self._view.here

    def take_lost(self) -> Set[IPFamily]:
        """Return the families whose addresses interfaces may have lost since the last call."""
        lost, self._lost = self._lost, set()
        return lost

    def _note_lost(self, addresses: Iterable[str]) -> None:
        for ip in addresses:
            # A link-local address disappears only with its link and the clients behind it, so no
            # conntrack entry needs removal.
            if ip and not ipaddress.ip_address(ip).is_link_local:
                self._lost.add(IPFamily.of(ip))

    def _chosen(self, current: str) -> str:
        if current and is_local(current):
            return current
        if not self._view.unnumbered:
            return ""
        preferred = (*self._preferred, _routed_source())
        return choose_address(preferred, self._view, is_local)

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._events.close()


def list_interfaces() -> InterfaceView:
    """List the interfaces of this thread's network namespace; may raise a SteeringError."""
    with explained("list interfaces"):
        return read_interfaces(NodeListings.here(), Clocks.monotonic())[0]


def read_interfaces(listings: NodeListings, since: float) -> tuple[InterfaceView, bool]:
    """List the interfaces of a network namespace.

    Returns: The interfaces, and whether they are current as of ``since`` (monotonic seconds).

    Raises:
        OSError: The kernel refused the listing.
    """
    links, listed = listings.links(since), listings.addresses(since)
    addresses = [address for address in listed.items if ":" not in address.ip]
    numbered = {address.link for address in addresses}
    view = InterfaceView(
        unnumbered=tuple(sorted(one.link.name for one in links.items if _lacks(one, numbered))),
        addresses=tuple(a.ip for a in addresses if a.scope == rtnetlink.SCOPE_UNIVERSE),
        here=frozenset(address.ip for address in listed.items),
    )
    return view, links.is_current and listed.is_current


def choose_address(
    preferred: tuple[str, ...], view: InterfaceView, is_there: Callable[[str], bool]
) -> str:
    """Return the address of this node for DNAT; empty if it has none.

    Args:
        preferred: The node's own addresses, best first; ignored if no interface has them.
        view: The interfaces; may be slightly out of date.
        is_there: Returns whether an address still exists.
    """
    candidates = [*preferred, *view.addresses]
    return next((ip for ip in candidates if ip in view.addresses and is_there(ip)), "")


def is_local(ip: str) -> bool:
    """Return whether an address belongs to an interface of this node.

    Raises:
        SteeringError: No socket is available to ask the kernel.
    """
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with explained(f"look for {ip} at this node"):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind((ip, 0))
        except OSError as exc:
            if shortage_hint(exc.errno):
                raise
            return False
    return True


def _lacks(listed: ListedLink, numbered: set[int]) -> bool:
    """Return whether an interface needs an address but has none."""
    is_up = listed.flags & rtnetlink.UP and not listed.flags & rtnetlink.LOOPBACK
    if not is_up or listed.link.number in numbered:
        return False
    # Ports of a bridge or bond need no address: their packets arrive at the bridge or bond.
    return listed.port_kind in ("", "vrf")


def _routed_source() -> str:
    """Return the source address for the default route; empty if there is no such route."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(_ELSEWHERE)
            return str(probe.getsockname()[0])
    except OSError:
        return ""
