"""The environment of programs in a network without a way out: it names no proxies."""

from __future__ import annotations

import os
from collections.abc import Mapping

_KINDS = ("http", "https", "ftp", "all", "no", "socks", "socks5", "ws", "wss", "rsync")
PROXY_VARIABLES = frozenset(f"{kind}_proxy" for kind in _KINDS)
"""In lower case; programs also read them in upper case."""


def without_proxies(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment without the proxies that programs would ask without effect.

    Those that are named for one program are of its own choice: write them behind ``env``, or into
    the environment that you pass.
    """
    return {name: text for name, text in environment.items() if name.lower() not in PROXY_VARIABLES}
