"""The environment of programs in a network without an uplink: no variables for HTTP proxies."""

from __future__ import annotations

import os
from collections.abc import Mapping

_KINDS = ("http", "https", "ftp", "all", "no", "socks", "socks5", "ws", "wss", "rsync")
PROXY_VARIABLES = frozenset(f"{kind}_proxy" for kind in _KINDS)
"""Lower-case names of the variables; programs also read them in upper case."""


def without_proxies(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment without variables for HTTP proxies, which can't be reached.

    If a program needs such a variable anyway, set it with ``env`` in its command, or pass an
    environment to ``run`` or ``popen``.
    """
    return {name: text for name, text in environment.items() if name.lower() not in PROXY_VARIABLES}
