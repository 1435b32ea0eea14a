"""Finds interfaces of this namespace without an IPv4 address, and the addresses of the others.

REDIRECT in PREROUTING sends a packet to its interface's address, and drops it where there is
none: pod interfaces of Calico, Cilium and AWS are like that.

Rule 1: reading costs a dump of all interfaces, so it is done after a netlink event only.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import SteeringError
from ..model import Frontend, IPFamily
from .netlink import Events, Requests, rtnetlink
from .netlink.rtnetlink import Link
from .netlink.sockets import NETLINK_ROUTE

# An address of TEST-NET-1 (RFC 5737): only asked for a route, nothing is sent.
_ELSEWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True, slots=True)
class InterfaceView:
    """The interfaces at one moment, as far as steering minds them."""

    unnumbered: tuple[str, ...] = ()
    """Names of those that are up and have no IPv4 address, sorted."""
    addresses: tuple[str, ...] = ()
    """Global IPv4 addresses of the node, in the kernel's order."""


def without_ipv6(
    frontends: Iterable[Frontend], conf: Path = Path("/proc/sys/net/ipv6/conf")
) -> dict[Frontend, str]:
    """Return the IPv6 frontends of a node on which IPv6 is switched off, with the cause.

    Rules for them are in force and have no effect, as no interface has an address.

    Args:
        frontends: Of both families.
        conf: The kernel's settings of each interface, in this thread's network namespace.
    """
    if _has_ipv6(conf):
        return {}
    return {
        frontend: f"cannot steer {frontend}: IPv6 is switched off on this node"
        for frontend in frontends
        if frontend.family is IPFamily.IPV6
    }


def _has_ipv6(conf: Path) -> bool:
    try:
        # Nearly always the first that is read says it: this is asked each second.
        return _is_on(conf / "all") or any(map(_is_on, conf.iterdir()))
    except OSError:
        return False


def _is_on(interface: Path) -> bool:
    try:
        return (interface / "disable_ipv6").read_text(encoding="ascii").strip() == "0"
    except OSError:
        # It has gone meanwhile.
        return False


class InterfaceWatch:
    """Reads the interfaces again when the kernel says that one changed."""

    def __init__(self) -> None:
        # Subscribed before the first reading, so nothing falls between the two.
        self._events = Events(NETLINK_ROUTE, [rtnetlink.GROUP_LINK, rtnetlink.GROUP_ADDRESS_4])
        self._view: InterfaceView | None = None

    def has_changed(self) -> bool:
        """Return whether :meth:`view` will read the interfaces anew."""
        if self._events.read():
            self._view = None
        return self._view is None

    def view(self) -> InterfaceView:
        """Return the interfaces as they are now."""
        if self.has_changed() or self._view is None:
            self._view = read_interfaces()
        return self._view

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._events.close()


class PreroutingAddress:
    """The address that PREROUTING translates to while REDIRECT won't do.

    Args:
        preferred: The node's own, best first.
    """

    def __init__(self, preferred: tuple[str, ...]) -> None:
        self._preferred = preferred
        self._watch = InterfaceWatch()

    def has_changed(self) -> bool:
        """Return whether an interface changed since :meth:`choose`."""
        return self._watch.has_changed()

    def choose(self, current: str) -> str:
        """Return the address for DNAT; empty for REDIRECT.

        Once taken DNAT stays while the address does: it serves all interfaces, and going back
        and forth as pods come and go would write all rules anew each time.

        Args:
            current: What rules in force translate to; empty for REDIRECT.
        """
        view = self._watch.view()
        if current and is_local(current):
            return current
        if not view.unnumbered:
            return ""
        return choose_address((*self._preferred, _routed_source()), view)

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()


def read_interfaces() -> InterfaceView:
    """List the interfaces of this namespace; blocks for about 10 µs an interface."""
    try:
        with Requests.open(NETLINK_ROUTE) as requests:
            listed = requests.list_all(rtnetlink.list_addresses(socket.AF_INET))
            links = requests.list_all(rtnetlink.list_links())
    except OSError as exc:
        raise SteeringError(f"cannot list interfaces: {exc.strerror}") from exc
    addresses = [rtnetlink.read_address(message) for message in listed]
    numbered = {address.link for address in addresses}
    return InterfaceView(
        unnumbered=tuple(
            sorted(link.name for link in map(rtnetlink.read_link, links) if _lacks(link, numbered))
        ),
        addresses=tuple(a.ip for a in addresses if a.scope == rtnetlink.SCOPE_UNIVERSE),
    )


def choose_address(preferred: tuple[str, ...], view: InterfaceView) -> str:
    """Return the address of this node that packets are sent to, or "" if it has none.

    Args:
        preferred: The node's own, best first; those that no interface has are passed over.
        view: The interfaces now.
    """
    candidates = [*preferred, *view.addresses]
    return next((ip for ip in candidates if ip in view.addresses), "")


def is_local(ip: str) -> bool:
    """Return whether an interface of this node has an address."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True


def _lacks(link: Link, numbered: set[int]) -> bool:
    """Return whether an interface needs an address and has none."""
    if not link.flags & rtnetlink.UP or link.flags & rtnetlink.LOOPBACK or link.number in numbered:
        return False
    # What comes in by a port of a bridge or bond belongs to its master; a VRF's doesn't.
    return link.port_kind in ("", "vrf")


def _routed_source() -> str:
    """Return the address that the default route's packets get, or "" without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
