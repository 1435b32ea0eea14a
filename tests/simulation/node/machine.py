"""The node of this half: the kernel's table leads clients to ports, and agents have whole loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from userspace_proxy.model import contains

from ..control.files import CONTROL, Port
from ..control.loop import ProcessLoop, Task
from ..control.machine import Machine, Process, Speed
from ..control.system_calls import ProcessKernel, ProcessSocket
from ..network import Address
from ..streams import CONNECTING, Stream
from ..timeline import Timeline
from .families import is_six

REFUSED, DROPPED = "refused", "dropped"
Verdict = int | str
"""Where the table leads a client: a port, or one of these."""

_ANY, _ANY_SIX = "0.0.0.0", "::"
QUEUE = 4096
"""Linux's default of net.core.somaxconn."""

# Source: tcp(7), net/ipv4/tcp_timer.c: a SYN is sent again after one second, then after two.
_SYN_AGAIN_S = 1.0
# What a thread's call takes, at most.
_CALL_S = 0.002


class NodeMachine(Machine):
    """A node whose clients dial frontends, which a table leads to ports."""

    def __init__(self, timeline: Timeline, rng: Random, speed: Speed) -> None:
        super().__init__(timeline, rng, speed)
        self.steer: Callable[[Address, Address, bool], Verdict] = lambda *_: REFUSED
        """Returns where a client is led: its address, what it dials, whether that is TCP."""
        self.dropped: Callable[[Stream], None] = lambda _client: None
        self.queue = QUEUE
        """How many clients wait for a listener at most: net.core.somaxconn."""
        self.queued: Callable[[int, bool], None] = lambda _waiting, _has_room: None
        """Called with how many clients wait where another one comes, and whether it may, too."""
        self.admitted: dict[Port, Sequence[str] | None] = {}
        """The source filters of sockets."""

    def is_admitted(self, port: Port, ip: str) -> bool:
        """Return whether a socket's filter lets packets of an address pass."""
        networks = self.admitted.get(port)
        return networks is None or contains(tuple(networks), ip)

    def is_bound(self, number: int, ip: str, *, is_tcp: bool) -> bool:
        """Return whether a port of the node is a process's, whether or not it listens."""
        return any(p.is_tcp is is_tcp and p.local == (_any(ip), number) for p in self.ports)

    def ports_at(self, number: int, ip: str, *, is_tcp: bool) -> list[Port]:
        """Return the sockets that take clients of a port of the node.

        Args:
            ip: An address of their family.
        """
        at = _any(ip), number
        bound = [p for p in self.ports if p.is_tcp is is_tcp and p.local == at]
        if is_tcp:
            return [port for port in bound if port.is_listening]
        return [port for port in bound if not port.is_deaf]

    def _arrive_at_node(self, client: Stream, again_s: float = _SYN_AGAIN_S) -> None:
        if client.state != CONNECTING:
            return
        assert client.local is not None, "it has an address"
        assert client.remote is not None, "it dials an address"
        verdict = self.steer(client.local, client.remote, True)
        ip = client.local[0]
        ports = self.ports_at(verdict, ip, is_tcp=True) if isinstance(verdict, int) else []
        if verdict == DROPPED:
            self.dropped(client)
            return
        if not ports:
            self.refused(client)
            client.fail(errno.ECONNREFUSED)
            return
        port = self._choose(ports, client.local)
        if not self.is_admitted(port, client.local[0]):
            self.dropped(client)
            return
        waiting = len(port.queue)
        if waiting <= min(port.backlog, self.queue):
            self.queued(waiting, True)
            client.joins(port)
        else:
            # The kernel answers nothing, and the client's one sends its SYN again.
            self.queued(waiting, False)
            self.timeline.after(again_s, self._arrive_at_node, client, 2 * again_s)

    def _reach_node(self, payload: bytes, source: Address, to: Address, hops: int) -> None:
        core = self._connected.get((to, source))
        if core is not None:
            core.receive(payload, source, to[0], hops)
            return
        verdict = self.steer(source, to, False)
        ip = source[0]
        ports = self.ports_at(verdict, ip, is_tcp=False) if isinstance(verdict, int) else []
        if ports:
            port = self._choose(ports, source)
            if self.is_admitted(port, source[0]):
                port.receive(payload, source, to[0], hops)


def _any(ip: str) -> str:
    """Return the address at which all clients of a family arrive."""
    return _ANY_SIX if is_six(ip) else _ANY


class AgentLoop(ProcessLoop):
    """What a whole agent uses of asyncio.AbstractEventLoop."""

    def __init__(self, process: Process, timeline: Timeline, rng: Random) -> None:
        super().__init__(process, timeline, rng)
        self.tasks: list[asyncio.Task[Any]] = []
        """All that were started: those of a process that died must not be collected early."""

    def create_task(
        self, coro: Any, *, name: Any = None, context: object = None
    ) -> asyncio.Task[Any]:
        """Part of asyncio.AbstractEventLoop."""
        task = Task(self, coro, name)
        self.tasks.append(task)
        return task

    def make_task(self, coro: Any) -> asyncio.Task[Any]:
        return self.create_task(coro)

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        """Part of asyncio.AbstractEventLoop."""
        return self.call_soon(callback, *args)

    def run_in_executor(
        self, _executor: Any, call: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Part of asyncio.AbstractEventLoop: a thread, which runs at once, some time later."""
        future = self.create_future()
        machine = self._process.machine
        delay_s = machine.thread_s() if isinstance(machine, AgentMachine) else 0.0
        self._timeline.after(delay_s, self._call_in_thread, future, call, args)
        return future

    def _call_in_thread(
        self, future: asyncio.Future[Any], call: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if self._process.is_dead:
            return
        with self._process:
            try:
                result = call(*args)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the caller gets it
                if not future.done():
                    future.set_exception(exc)
            else:
                if not future.done():
                    future.set_result(result)

    def end(self) -> None:
        """End the tasks of a process that is dead."""
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done():
                # One that waits in its clean-up says so.
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
            elif not task.cancelled():
                task.exception()
        self.tasks.clear()


class AgentMachine(NodeMachine):
    """A node with agents."""

    slow_s = 0.0
    """How long calls in threads take from now on."""

    def thread_s(self) -> float:
        """Return how long the next call in a thread waits."""
        return self.slow_s + _CALL_S * self._random()


class AgentProcess(Process):
    """The process of an agent."""

    loop: AgentLoop

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine, CONTROL, name)
        self.loop = AgentLoop(self, machine.timeline, machine.rng)
        self.kernel = AgentKernel(self, machine, machine.rng)

    def forget(self) -> None:
        """Have nothing of it run any more, not even what follows an end."""
        self.is_dead = True
        with self:
            self.loop.end()


class AgentKernel(ProcessKernel):
    """The system calls of an agent's process."""

    def socket(
        self, family: int = 2, kind: int = 1, proto: int = 0, fileno: int | None = None
    ) -> ProcessSocket:
        """Part of _socket."""
        found = super().socket(family, kind, proto, fileno)
        if not isinstance(found.core.shared if hasattr(found.core, "shared") else None, Port):
            return found
        return AgentSocket(self, family, kind, proto, found.fileno())


class AgentSocket(ProcessSocket):
    """Part of socket.socket: one that can be bound."""

    __slots__ = ()

    def bind(self, address: Any) -> None:
        """Part of socket.socket."""
        if self.family == socket.AF_INET6:
            address = (address[0] or _ANY_SIX, address[1])
        super().bind((address[0] or _ANY, address[1]))
