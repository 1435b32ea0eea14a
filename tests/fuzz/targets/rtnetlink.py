"""Target for rtnetlink datagrams: links, addresses, routes, rules."""

from __future__ import annotations

import contextlib
import ipaddress

from userspace_proxy.kernel.netlink import rtnetlink
from userspace_proxy.kernel.netlink.messages import Message, is_last, read_messages


def check_rtnetlink(data: bytes) -> None:
    """Check that a malformed message raises OSError, and that parsed values are well-formed."""
    with contextlib.suppress(OSError):
        is_last(data)
    for message in read_messages(data):
        with contextlib.suppress(OSError):
            _check(message)


def _check(message: Message) -> None:
    match message.kind:
        case rtnetlink.NEW_LINK | rtnetlink.DEL_LINK:
            assert not rtnetlink.read_link(message).link.name.endswith("\0")
        case rtnetlink.NEW_ADDRESS | rtnetlink.DEL_ADDRESS:
            if ip := rtnetlink.read_address(message).ip:
                ipaddress.ip_address(ip)
        case rtnetlink.NEW_ROUTE | rtnetlink.DEL_ROUTE:
            details = rtnetlink.read_route(message).open()
            ipaddress.ip_network(details.network, strict=False)
        case rtnetlink.NEW_RULE | rtnetlink.DEL_RULE:
            rule = rtnetlink.read_rule(message)
            kind, flags = rtnetlink.NEW_RULE, 0
            if rule.in_interface.isascii():
                (again,) = read_messages(rtnetlink.write_rule(kind, flags, rule))
                assert rtnetlink.read_rule(again)._replace(family=rule.family) == rule
