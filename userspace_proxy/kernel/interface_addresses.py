"""Tracks the addresses of this node's interfaces.

    kernel ──RTM_NEWADDR, RTM_DELADDR──▶ event socket ──▶ RTM_GETADDR dump ──▶ current

Rule 1: events only show that something changed; the addresses are always read in full, so a lost
event does no harm.
Rule 2: the network namespace is that of the thread that creates the object.

Source: rtnetlink(7), netlink(7), include/uapi/linux/if_addr.h.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Callable, Container

from .netlink import Requests, RouteSockets, explained, rtnetlink
from .netlink.messages import Message
from .netlink.sockets import NETLINK_ROUTE

_log = logging.getLogger("userspace_proxy.agent")

_IFA_F_OPTIMISTIC = 0x04
_IFA_F_DADFAILED = 0x08
_IFA_F_TENTATIVE = 0x40
_LINK_LOCAL = ipaddress.IPv6Network("fe80::/10")

# Interfaces whose addresses are cluster IPs of Services: of kube-proxy's mode ipvs, of kube-router,
# of NodeLocal DNSCache. Source: DefaultDummyDevice in pkg/proxy/ipvs; -interfacename of node-cache.
_LENDERS = ("kube-ipvs0", "kube-dummy-if", "nodelocaldns")

_GROUPS = (rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6)
_RETRY_S = 1.0
_LISTING = "list this node's addresses"


class NodeAddresses:
    """The current addresses of this node.

    Args:
        changed: Called in the loop after :attr:`current` has changed.

    Raises:
        SteeringError: The kernel doesn't list them.
    """

    current: tuple[str, ...]
    """Those of all interfaces and both families in canonical form, sorted as text, with loopback.
    IPv6 link-local addresses are left out, because a client must name an interface to dial them,
    and so are addresses that the kernel doesn't answer at (duplicate address detection), and those
    that other programs have given the node for Services."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self._retry: asyncio.TimerHandle | None = None
        with explained(_LISTING), contextlib.ExitStack() as opened:
            self._sockets = opened.enter_context(RouteSockets(_GROUPS))
            self.current = read_addresses(self._sockets.requests)
            opened.pop_all()
        loop.add_reader(self._sockets.events.fileno(), self._on_events)

    def close(self) -> None:
        """Stop watching; ``current`` stays as it is. Idempotent."""
        if self._sockets.events.fileno() >= 0:
            self._loop.remove_reader(self._sockets.events.fileno())
        self._cancel_retry()
        self._sockets.close()

    def _on_events(self) -> None:
        self._sockets.events.read()
        self._read_again()

    def _read_again(self) -> None:
        self._cancel_retry()
        try:
            addresses = read_addresses(self._sockets.requests)
        except OSError as exc:
            _log.warning("cannot list this node's addresses", extra={"cause": exc.strerror})
            self._retry = self._loop.call_later(_RETRY_S, self._read_again)
            return
        if addresses != self.current:
            self.current = addresses
            self._changed()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None


def list_addresses() -> tuple[str, ...]:
    """List the addresses of this thread's network namespace, as :attr:`NodeAddresses.current`.

    Raises:
        SteeringError: The kernel doesn't list them.
    """
    with explained(_LISTING), Requests.open(NETLINK_ROUTE) as requests:
        return read_addresses(requests)


def read_addresses(requests: Requests) -> tuple[str, ...]:
    """List the addresses of a network namespace, as :attr:`NodeAddresses.current`."""
    listed = requests.list_all(rtnetlink.list_addresses())
    lent = frozenset(map(_index, _LENDERS))
    found = {_read(one, lent) for one in listed if one.kind == rtnetlink.NEW_ADDRESS}
    return tuple(sorted(found - {""}))


def _index(interface: str) -> int:
    """Return the number of an interface; 0, which none has, if there is no such interface."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def _read(message: Message, lent: Container[int]) -> str:
    """Return the address of a message; empty if it is left out.

    Args:
        lent: Interfaces whose addresses are those of Services.
    """
    address = rtnetlink.read_address(message)
    if address.link in lent:
        return ""
    flags = address.flags
    is_tentative = flags & _IFA_F_TENTATIVE and not flags & _IFA_F_OPTIMISTIC
    if not address.ip or is_tentative or flags & _IFA_F_DADFAILED:
        return ""
    ip = ipaddress.ip_address(address.ip)
    return "" if ip.version == 6 and ip in _LINK_LOCAL else address.ip
