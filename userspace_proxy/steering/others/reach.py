"""Queries which route packets from this node would take, and which interfaces it has."""

from __future__ import annotations

from typing import NamedTuple

from ...errors import SteeringError
from ...kernel.netlink import rtnetlink
from ...kernel.netlink.rtnetlink import Link
from ...kernel.route_requests import open_route_requests


class Path(NamedTuple):
    """How the kernel would send a packet."""

    refusal: str
    """In the kernel's words why it wouldn't; empty where it would."""


def find_path(ip: str) -> Path:
    """Ask the kernel for the route of an address, as ``ip route get`` does.

    Raises:
        SteeringError: Netlink sockets can't be opened.
    """
    with open_route_requests() as requests:
        try:
            requests.ask(rtnetlink.find_route(ip))
        except OSError as exc:
            return Path(str(exc.strerror))
    return Path("")


def list_links() -> list[Link]:
    """List the interfaces of this thread's network namespace.

    Raises:
        SteeringError: The kernel doesn't list them.
    """
    with open_route_requests() as requests:
        try:
            return [rtnetlink.read_link(m) for m in requests.list_all(rtnetlink.list_links())]
        except OSError as exc:
            raise SteeringError(f"cannot list interfaces: {exc.strerror}") from exc
