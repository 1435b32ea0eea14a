"""A node without IPv6 for a while: its interfaces have no address of it, and no client comes by it.

Source: the docstrings of ``steering.base`` (``unsteered``), Documentation/networking/ip-sysctl.rst
(``disable_ipv6``: the kernel removes all addresses).
"""

from __future__ import annotations

from dataclasses import replace

from userspace_proxy.model import Frontend

from ..netlink_routes import Link


def ipv4_of(link: Link) -> Link:
    """Return what is left of a link where IPv6 is switched off."""
    return replace(
        link,
        addresses=tuple(one for one in link.addresses if ":" not in one),
        networks=tuple(one for one in link.networks if ":" not in one),
        beyond=tuple(one for one in link.beyond if ":" not in "".join(one)),
    )


def has_effect(frontend: Frontend, *, has_ipv6: bool) -> bool:
    """Return whether rules for a frontend have an effect."""
    return has_ipv6 or ":" not in frontend.ip
