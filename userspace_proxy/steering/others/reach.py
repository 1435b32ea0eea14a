"""Queries which routes packets from this node would take, and which interfaces it has."""

from __future__ import annotations

from typing import NamedTuple

from ...kernel.netlink import Requests, explained, rtnetlink
from ...kernel.netlink.rtnetlink import ListedLink
from ...kernel.netlink.sockets import NETLINK_ROUTE


class Path(NamedTuple):
    """How the kernel would send a packet."""

    refusal: str
    """The kernel's reason why it wouldn't; empty if it would."""


def find_path(ip: str) -> Path:
    """Ask the kernel for the route to an address, as ``ip route get`` does.

    Raises:
        SteeringError: Netlink sockets can't be opened.
    """
    with explained("open a netlink socket"), Requests.open(NETLINK_ROUTE) as requests:
        try:
            requests.ask(rtnetlink.find_route(ip))
        except OSError as exc:
            return Path(str(exc.strerror))
    return Path("")


def list_links() -> list[ListedLink]:
    """List the interfaces of this thread's network namespace.

    Raises:
        SteeringError: The kernel doesn't list them.
    """
    with explained("list interfaces"), Requests.open(NETLINK_ROUTE) as requests:
        return [rtnetlink.read_link(m) for m in requests.list_all(rtnetlink.list_links())]
