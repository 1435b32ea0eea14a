"""Decides which ``Host`` headers a listener on loopback accepts.

A web page can make the browser resolve the page's own host name to 127.0.0.1 (DNS rebinding) and
read this server's answers. Only the ``Host`` header reveals such a request.
"""

from __future__ import annotations

import ipaddress
import re

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]{1,5})?")


def is_loopback_host(header: str) -> bool:
    """Return whether a ``Host`` header names a loopback address of this machine.

    Args:
        header: As received: ``localhost:10249``, ``127.0.0.1``, ``[::1]:80``. Any port
            is accepted, so that ``kubectl port-forward`` works.
    """
    match = _HOST.fullmatch(header.strip())
    if match is None:
        return False
    name = match["v6"] or match["name"]
    if name.lower().removesuffix(".") == "localhost":
        return match["v6"] is None
    return is_loopback_address(name)


def is_loopback_address(text: str) -> bool:
    """Return whether a string is an address in 127.0.0.0/8 or ::1; False for a name."""
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return False
