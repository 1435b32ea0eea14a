"""Implements the command ``dashboard``, which shows all nodes in the user's browser.

    kubeconfig ──▶ reader ──▶ AllNodes ──▶ Dashboard ◀── the browser

Rule 1: the browser is opened only after a node has answered or failed to answer, so a user without
rights gets an error instead of an empty page.
Rule 2: a browser that runs in this terminal isn't opened.
"""

from __future__ import annotations

import asyncio
import os
import sys
import webbrowser
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.cli.command import DONE, Given
from userspace_proxy.cli.kubeconfig import find
from userspace_proxy.errors import ConfigError

from .followed import open_reader

if TYPE_CHECKING:
    from userspace_proxy.config import Settings

    from ..nodes.agent_answer import AllNodes
    from ..nodes.reader import NodesReader

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "WSL_DISTRO_NAME")


def dashboard(given: Given) -> int:
    """Serve the dashboard until Ctrl-C; return the exit status.

    Raises:
        UserspaceProxyError: A flag is wrong, no agent can be reached, or the port is taken.
    """
    settings = settings_of(given)
    port = _port(given)
    reader = open_reader(given, settings)
    opens = open_browser if not given.is_on("no-open") and has_screen() else None
    asyncio.run(_serve(reader, cluster=_cluster(given, settings), port=port, opens=opens))
    return DONE


def has_screen(platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a browser can open outside this terminal."""
    return platform in ("darwin", "win32") or any(map(environment.get, _SCREENS))


def open_browser(address: str) -> None:
    """Open a URL in the user's browser, if there is one."""
    webbrowser.open(address)


async def _serve(
    reader: NodesReader, *, cluster: str, port: int, opens: Callable[[str], None] | None
) -> None:
    from ..nodes.dashboard.live import Live
    from ..nodes.dashboard.server import Dashboard

    async with reader:
        name = cluster or reader.client.url
        server = Dashboard(Live(lambda: reader.now, reader.ask, cluster=name))
        addresses = await server.serve(port)
        try:
            is_shown = False
            async for all_nodes in reader.follow():
                if not is_shown and _has_answers(all_nodes):
                    is_shown = True
                    _print(f"all nodes of {name}: {addresses.printed}")
                    _print("anyone who has this address can read what you can; Ctrl-C ends it")
                    if opens is not None:
                        await asyncio.to_thread(opens, addresses.once)
        finally:
            await server.close()


def _has_answers(all_nodes: AllNodes) -> bool:
    return any(one.status is not None or one.problem is not None for one in all_nodes.answers)


def _port(given: Given) -> int:
    text = given.values.get("port", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 2**16):
        raise ConfigError(f"--port: {text!r} is not a port", hint="write a number below 65536")
    return int(text)


def _cluster(given: Given, settings: Settings) -> str:
    """Return the name of the kubeconfig context; empty without a kubeconfig."""
    from userspace_proxy.sources.kubernetes.kubeconfig_files import read_kubeconfig

    kubeconfig = find(given, settings)
    if kubeconfig is None:
        return ""
    return read_kubeconfig(kubeconfig, server=settings.master).context


def _print(line: str) -> None:
    print(line, flush=True)
