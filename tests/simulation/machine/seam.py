"""The seam: names in modules of ``plane`` that a simulated node replaces.

The modules look these up at each call, so the product needs no hook. Names of the data plane
are replaced as in ``tests.simulation.seam``, by the system calls of the current process.
"""

from __future__ import annotations

import _socket
import contextlib
import functools
import gc
import os
import resource
import socket
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec

import userspace_proxy.plane
from userspace_proxy.agent import hand_over
from userspace_proxy.clocks import Clocks
from userspace_proxy.dataplane import Engine
from userspace_proxy.kernel import listening_sockets
from userspace_proxy.plane import listener, worker_main, worker_process
from userspace_proxy.plane.reuseport import order_left
from userspace_proxy.plane.watchdog import Watchdog

from .. import seam
from .machine import Machine
from .system_calls import is_answered

_TICKS = "0 " * 20


def _namespace(module: ModuleType, **others: Any) -> SimpleNamespace:
    return SimpleNamespace(**{**vars(module), **others})


class _CurrentKernel:
    """The system calls of the current process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def __getattr__(self, name: str) -> Any:
        machine = self._machine
        call_of = attrgetter(f"current.kernel.{name}")

        def call(*args: Any, **kwargs: Any) -> Any:
            return call_of(machine)(*args, **kwargs)

        return call


class _Stat:
    """Simulates Path for a process's entry in /proc."""

    def __init__(self, machine: Machine, name: str = "") -> None:
        self._machine = machine
        self._name = name

    def __truediv__(self, name: str) -> _Stat:
        return _Stat(self._machine, name)

    def read_text(self, _encoding: str) -> str:
        pid = int(self._name.partition("/")[0])
        process = self._machine.process_of(pid)
        is_late = process.loop.held_until > self._machine.timeline.now and not process.is_hung
        return f"{pid} (worker) {'R' if is_late else 'S'} {_TICKS}"


@functools.cache
def _decoder(of: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a message type; runs share it, because it has no state."""
    return msgspec.json.Decoder(of)


def _nothing(*_args: Any, **_kwargs: Any) -> None:
    """Replaces functions that change this process."""


def _choose(sock: Any, _family: int = 0, count: int = 0) -> None:
    """Set how the sockets of a port's group are chosen."""
    sock.core.shared.sharers.by_client = count


def _names(machine: Machine, kernel: Any, descriptors: int) -> dict[str, Any]:
    """Return names of the interpreter's modules and of functions, with their replacements."""
    return {
        "os": _namespace(
            os,
            close=kernel.close,
            eventfd=kernel.eventfd,
            eventfd_read=kernel.eventfd_read,
            eventfd_write=kernel.eventfd_write,
            getpid=kernel.getpid,
            geteuid=lambda: 0,
            pidfd_open=kernel.pidfd_open,
        ),
        "socket": _namespace(socket, socket=kernel.socket),
        "_socket": _namespace(_socket, socket=kernel.socket),
        "Clocks": SimpleNamespace(monotonic=machine.timeline.clock, time=Clocks.time),
        # Creating a decoder takes as long as decoding a hundred messages, and each run would create
        # dozens.
        "msgspec": _namespace(msgspec, json=_namespace(msgspec.json, Decoder=_decoder)),
        "gc": _namespace(gc, collect=_nothing, freeze=_nothing),
        "resource": _namespace(resource, getrlimit=lambda _what: (descriptors, descriptors)),
        "abstract_sockets": SimpleNamespace(
            accept=kernel.accept, connect=kernel.connect, peer=kernel.peer
        ),
        "net_admin_proof": SimpleNamespace(
            can_prove=lambda _sock: True,
            is_answered=is_answered,
            open_challenge=lambda: machine.kernel.socket(_socket.AF_NETLINK),
        ),
        "open_worker_socket": kernel.open_worker_socket,
        "start_child": lambda _entry: machine.start_child(
            lambda fd: worker_main._run(kernel.socket(fileno=fd))
        ),
        "end_child": machine.end_child,
        "find_memory_limits": list,
        "be_killed_first": _nothing,
        "exit_on_memory_error": _nothing,
        "take_levels": _nothing,
        "reuseport": SimpleNamespace(
            choose_by_client=_choose, choose_by_chance=_choose, order_left=order_left
        ),
    }


class _WorkerMain(worker_main.WorkerMain):
    """A WorkerMain that doesn't drop its privileges, and that oracles can inspect."""

    def __init__(self, machine: Machine, loop: Any, sock: Any) -> None:
        super().__init__(loop, sock, confine=_nothing)
        assert machine.current is not None, "a process runs"
        machine.current.main = self


@contextlib.contextmanager
def installed(
    machine: Machine,
    rng: Random,
    *,
    descriptors: int,
    constants: Mapping[str, float],
    watching: Sequence[tuple[Any, str, Any]] = (),
) -> Iterator[None]:
    """Connect the product to a simulated node within the block.

    Args:
        rng: Draws the node's random choices.
        descriptors: The descriptor limit of a process.
        constants: Other values for constants of ``plane``, wherever a module has them.
        watching: Replaces methods of classes, for oracles: class, name, value.
    """
    kernel = _CurrentKernel(machine)
    names = {**_names(machine, kernel, descriptors), **constants}
    patches: list[tuple[Any, str, Any]] = [
        (module, name, value)
        for module in seam.modules_of(userspace_proxy.plane)
        for name, value in names.items()
        if name in vars(module)
    ]
    patches += [
        (worker_main, "Engine", partial(Engine, clock=machine.timeline.clock)),
        (worker_main, "WorkerMain", partial(_WorkerMain, machine)),
        (worker_process, "Watchdog", lambda: Watchdog(_Stat(machine))),  # type: ignore[arg-type]
        (hand_over, "connect_to_workers", kernel.connect_to_workers),
        *((module, "admit", _nothing) for module in (listener, listening_sockets)),
        *watching,
    ]
    undo = [(module, name, vars(module)[name]) for module, name, _ in patches]
    with seam.installed(kernel, rng, {}):  # type: ignore[arg-type]
        for module, name, value in patches:
            setattr(module, name, value)
        try:
            yield
        finally:
            for module, name, value in reversed(undo):
                setattr(module, name, value)
