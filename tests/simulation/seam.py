"""The seam: names in modules of the data plane that a simulation replaces.

    calls ── select.epoll, _socket.socket, os.splice, os.read, os.pipe2, os.close, fcntl.fcntl
    kernel.listening_sockets, client_address ── _socket.socket
    kernel.tcp_state ── fcntl.ioctl

The modules look these up at each call, so the data plane needs no hooks, which would cost time.
Some constants are replaced, too, so that a few hundred bytes count as bulk traffic.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import functools
import importlib
import logging
import os
import pkgutil
import random
import select
from collections.abc import Callable, Iterator, Mapping
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import userspace_proxy.dataplane
from userspace_proxy.kernel import listening_sockets, tcp_state

from .kernel import Kernel
from .network import EPHEMERAL_PORTS

_SYSTEM: Mapping[str, tuple[ModuleType, tuple[str, ...]]] = {
    "_socket": (_socket, ("socket",)),
    "select": (select, ("epoll",)),
    "os": (os, ("pipe2", "close", "read", "splice")),
    "fcntl": (fcntl, ("fcntl", "ioctl")),
}
"""Modules, with their functions that are replaced."""


class InOrder(dict[Any, None]):
    """A set in insertion order instead of the order of memory addresses."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class _Ports:
    """Simulates EphemeralPorts."""

    def includes(self, port: int, _now: float) -> bool:
        return port in EPHEMERAL_PORTS

    def count(self, _now: float) -> int:
        return len(EPHEMERAL_PORTS)


@functools.cache
def modules_of(package: ModuleType) -> list[ModuleType]:
    names = [each.name for each in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def _nothing() -> None:
    """Do nothing, in place of a function that would change this process."""


def _has_host(_ip: str) -> None:
    """Return None: the neighbour table has an entry for each host."""


def _find_no_caller(*_args: object) -> tuple[str, int, str, None]:
    return "", 0, "", None


@contextlib.contextmanager
def installed(
    kernel: Kernel,
    rng: Random,
    constants: Mapping[str, int],
    absent_hop: Callable[[str], str | None] = _has_host,
) -> Iterator[None]:
    """Connect the data plane to a simulated kernel within the block.

    Args:
        rng: Makes a node's random choices.
        constants: Other values for the data plane's constants, wherever a module has them.
        absent_hop: Looks up the neighbour table; by default each address has a host.
    """
    fakes: dict[str, Any] = {}
    for name, (real, functions) in _SYSTEM.items():
        fake = SimpleNamespace(**vars(real))
        for function in functions:
            setattr(fake, function, getattr(kernel, function))
        fakes[name] = fake
    others = {
        "EPHEMERAL": _Ports(),
        "_return_freed_memory": _nothing,
        "absent_hop": absent_hop,
        "random": rng,
        **constants,
    }
    undo: list[tuple[ModuleType, str, Any]] = []
    for module in (*modules_of(userspace_proxy.dataplane), listening_sockets, tcp_state):
        for name, value in {**fakes, **others}.items():
            system = _SYSTEM[name][0] if name in _SYSTEM else None
            has = vars(module).get(name)
            is_random = name == "random" and has is not random
            if has is None or is_random or (system is not None and has is not system):
                continue
            if name == "random" and module.__name__.endswith(".balancers"):
                continue
            undo.append((module, name, has))
            setattr(module, name, value)
        if module.__name__.endswith((".tcp_connections", ".dataplane")):
            vars(module)["set"] = InOrder
    try:
        yield
    finally:
        for module, name, value in undo:
            setattr(module, name, value)
        for module in modules_of(userspace_proxy.dataplane):
            vars(module).pop("set", None)


@contextlib.contextmanager
def logging_to(handler: logging.Handler, name: str, level: int) -> Iterator[None]:
    """Send a logger's lines of at least this level to one handler only."""
    logger = logging.getLogger(name)
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    # The caller isn't logged, and finding it takes half as long as the rest of a line.
    vars(logger)["findCaller"] = _find_no_caller
    try:
        yield
    finally:
        del vars(logger)["findCaller"]
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
