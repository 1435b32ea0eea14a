"""The seam: names in modules of the product that a simulated kernel replaces.

kernel.netlink.sockets ── socket.socket, Clocks      kernel.one_thread ── OneThread
kernel.interfaces ─────── socket.socket, Clocks, /proc/sys
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

from userspace_proxy.clocks import Clocks
from userspace_proxy.kernel import interfaces, node_listings, one_thread, routes
from userspace_proxy.kernel.netlink import sockets
from userspace_proxy.kernel.node_listings import NodeListings
from userspace_proxy.steering import pod_links

from .netlink_kernel import NetlinkKernel, socket_module

Result = TypeVar("Result")


class InlineThread:
    """Simulates OneThread: a call runs immediately, in the thread of the test."""

    def __init__(self, _name: str) -> None:
        self.has_begun = False

    async def run(self, call: Callable[[], Result]) -> Result:
        self.has_begun = True
        return call()

    def close(self) -> None:
        self.has_begun = False


class Sysctls:
    """The sysctls of a node, as far as steering reads them."""

    def __init__(self) -> None:
        self.zeros: set[str] = set()
        """The files below /proc/sys/net that contain 0."""
        self.has_ipv6 = True

    def is_zero(self, setting: Path) -> bool:
        return str(setting).removeprefix("/proc/sys/net/") in self.zeros


def names(
    kernel: NetlinkKernel,
    sysctls: Sysctls,
    process: Callable[[], int],
) -> list[tuple[ModuleType, str, Any]]:
    """Return modules, names in them, and the replacements.

    Args:
        process: Returns the PID of the current process, within which listings are shared.
    """
    module = socket_module(kernel)
    clocks = SimpleNamespace(monotonic=kernel.clock, time=Clocks.time)
    return [
        (sockets, "socket", module),
        (sockets, "Clocks", clocks),
        (interfaces, "socket", module),
        (interfaces, "Clocks", clocks),
        (interfaces, "_is_zero", sysctls.is_zero),
        (interfaces, "_has_ipv6", lambda _conf: sysctls.has_ipv6),
        (pod_links, "Clocks", clocks),
        (routes, "Clocks", clocks),
        (node_listings, "network_namespace", lambda _process: process()),
        (one_thread, "OneThread", InlineThread),
    ]


@contextlib.contextmanager
def installed(
    kernel: NetlinkKernel,
    sysctls: Sysctls,
    process: Callable[[], int],
) -> Iterator[None]:
    """Connect the product to a simulated kernel within the block; arguments as in :func:`names`."""
    patches = names(kernel, sysctls, process)
    undo = [(module, name, vars(module)[name]) for module, name, _ in patches]
    # The clocks of listings are default arguments.
    defaults = NodeListings.__init__.__defaults__
    NodeListings.__init__.__defaults__ = (kernel.clock, kernel.cpu_clock)
    for module, name, value in patches:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
        NodeListings.__init__.__defaults__ = defaults
