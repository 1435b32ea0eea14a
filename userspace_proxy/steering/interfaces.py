"""Which interfaces of this namespace have no IPv4 address, and which addresses others have.

REDIRECT in PREROUTING sends a packet to its interface's address, and drops it where there is
none: pod interfaces of Calico, Cilium and AWS are like that.

Rule 1: reading costs a dump of all interfaces, so it is done after a netlink event only.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any

from ..errors import SteeringError

# Source: include/uapi/linux/rtnetlink.h and if.h.
NETLINK_ROUTE = 0
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
IFF_UP = 0x1
IFF_LOOPBACK = 0x8
SCOPE_UNIVERSE = 0
# An address of TEST-NET-1 (RFC 5737): only asked for a route, nothing is sent.
_ELSEWHERE = ("192.0.2.1", 9)


@dataclass(frozen=True, slots=True)
class InterfaceView:
    """The interfaces at one moment, as far as steering minds them."""

    unnumbered: tuple[str, ...] = ()
    """Names of those that are up and have no IPv4 address, sorted."""
    addresses: tuple[str, ...] = ()
    """Global IPv4 addresses of the node, in the kernel's order."""


class InterfaceWatch:
    """Reads the interfaces again when the kernel says that one changed."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE)
        self._socket.setblocking(False)
        # Subscribed before the first reading, so nothing falls between the two.
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR))
        self._view: InterfaceView | None = None

    def has_changed(self) -> bool:
        """Return whether :meth:`view` will read the interfaces anew."""
        while True:
            try:
                self._socket.recv(65536)
            except BlockingIOError:
                return self._view is None
            except OSError:
                # ENOBUFS: events were lost, so there were some.
                pass
            self._view = None

    def view(self) -> InterfaceView:
        """Return the interfaces as they are now."""
        if self.has_changed() or self._view is None:
            self._view = read_interfaces()
        return self._view

    def close(self) -> None:
        """Close the socket; idempotent."""
        self._socket.close()


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
        return choose_address(self._preferred, view) if view.unnumbered else ""

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()


def read_interfaces() -> InterfaceView:
    """List the interfaces of this namespace; blocks for about 0.2 ms an interface."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            addresses = list(ip.get_addr(family=socket.AF_INET))
            links = list(ip.get_links())
    except (OSError, NetlinkError) as exc:
        raise SteeringError(f"cannot list interfaces: {exc}") from exc
    numbered = {address["index"] for address in addresses}
    return InterfaceView(
        unnumbered=tuple(
            sorted(link.get("ifname") for link in links if _needs_address(link, numbered))
        ),
        addresses=tuple(
            address.get("local") or address.get("address")
            for address in addresses
            if address["scope"] == SCOPE_UNIVERSE
        ),
    )


def choose_address(preferred: tuple[str, ...], view: InterfaceView) -> str:
    """Return the address of this node that packets are sent to, or "" if it has none.

    Args:
        preferred: The node's own, best first; those that no interface has are passed over.
        view: The interfaces now.
    """
    candidates = [*preferred, _routed_source(), *view.addresses]
    return next((ip for ip in candidates if ip in view.addresses), "")


def is_local(ip: str) -> bool:
    """Return whether an interface of this node has an IPv4 address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
    return True


def _needs_address(link: Any, numbered: set[int]) -> bool:
    flags = link["flags"]
    if not flags & IFF_UP or flags & IFF_LOOPBACK or link["index"] in numbered:
        return False
    # What comes in by a port of a bridge or bond belongs to its master; a VRF's doesn't.
    kind = (link.get("linkinfo") or {}).get("slave_kind")
    return kind is None or kind == "vrf"


def _routed_source() -> str:
    """Return the address that the default route's packets get, or "" without one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
        except OSError:
            return ""
        return str(probe.getsockname()[0])
