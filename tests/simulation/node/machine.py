"""The node: rules send clients to ports or endpoints, and agents run on whole event loops."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from userspace_proxy.model import contains

from ..machine.files import CONTROL, Port
from ..machine.loop import ProcessLoop, Task
from ..machine.machine import Machine, Process, Speed
from ..machine.system_calls import ProcessKernel, ProcessSocket
from ..network import Address
from ..streams import CONNECTING, Stream
from ..timeline import Timeline
from .families import is_six

REFUSED, DROPPED = "refused", "dropped"
Verdict = int | str | Address
"""The destination of a client: a port, an endpoint, ``REFUSED`` or ``DROPPED``."""

_ANY, _ANY_SIX = "0.0.0.0", "::"
QUEUE = 4096
"""Linux's default for net.core.somaxconn."""

# Source: tcp(7), net/ipv4/tcp_timer.c: a SYN is retransmitted after one second, then two.
_SYN_AGAIN_S = 1.0
# The longest duration of a call in a thread, and the pause before the thread's next call.
_CALL_S, _NEXT_S = 0.002, 1e-6


class NodeMachine(Machine):
    """A node whose clients dial frontends; rules send them to ports or endpoints."""

    def __init__(self, timeline: Timeline, rng: Random, speed: Speed) -> None:
        super().__init__(timeline, rng, speed)
        self.steer: Callable[[Address, Address, bool], Verdict] = lambda *_: REFUSED
        """Returns the destination for a client's address, the dialled address, and ``is_tcp``."""
        self.answered: Callable[[Address, Address], None] = lambda *_: None
        """Called for a client that waits for a listener, with its and the dialled address."""
        self.queue = QUEUE
        """The maximum number of clients that wait for a listener: net.core.somaxconn."""
        self.admitted: dict[Port, Sequence[str] | None] = {}
        """The source filters of sockets."""

    def is_admitted(self, port: Port, ip: str) -> bool:
        """Return whether a socket's filter accepts packets of an address."""
        networks = self.admitted.get(port)
        return networks is None or contains(tuple(networks), ip)

    def is_bound(self, number: int, ip: str, *, is_tcp: bool) -> bool:
        """Return whether a process has bound a port of the node, listening or not."""
        return any(p.is_tcp is is_tcp and p.local == (_any(ip), number) for p in self.ports)

    def ports_at(self, number: int, ip: str, *, is_tcp: bool) -> list[Port]:
        """Return the sockets that accept clients of a port of the node.

        Args:
            ip: An address of the sockets' family.
        """
        at = _any(ip), number
        bound = [p for p in self.ports if p.is_tcp is is_tcp and p.local == at]
        if is_tcp:
            return [port for port in bound if port.is_listening]
        return [port for port in bound if not port.is_deaf]

    def _arrive_at_node(self, client: Stream, again_s: float = _SYN_AGAIN_S) -> None:
        if client.state != CONNECTING:
            return
        assert client.local is not None, "the client has no address"
        assert client.remote is not None, "the client dials no address"
        verdict = self.steer(client.local, client.remote, True)
        if isinstance(verdict, tuple):
            self._arrive_at_endpoint(client, verdict)
            return
        ip = client.local[0]
        ports = self.ports_at(verdict, ip, is_tcp=True) if isinstance(verdict, int) else []
        if verdict == DROPPED:
            self._dial_again(client, again_s)
            return
        if not ports:
            self.refused(client)
            client.fail(errno.ECONNREFUSED)
            return
        port = self._choose(ports, client.local)
        if not self.is_admitted(port, client.local[0]):
            self._dial_again(client, again_s)
            return
        if len(port.queue) <= min(port.backlog, self.queue):
            self.answered(client.local, client.remote)
            client.joins(port)
        else:
            self._dial_again(client, again_s)

    def _dial_again(self, client: Stream, after_s: float) -> None:
        """Retransmit the SYN of a client that the kernel hasn't answered."""
        self.timeline.after(after_s, self._arrive_at_node, client, 2 * after_s)

    def _arrive_at_endpoint(self, client: Stream, at: Address) -> None:
        """Pass a client to the endpoint that the kernel has chosen, if it exists."""
        host = self.hosts.get(at)
        if host is not None:
            server = Stream(self, f"endpoint {at[0]}")
            server.local, server.remote, server.inline = at, client.local, True
            server.opened(client)
            client.opened(server)
            host.accept(server)

    def _reach_node(self, payload: bytes, source: Address, to: Address, hops: int) -> None:
        core = self._connected.get((to, source))
        if core is not None:
            core.receive(payload, source, to[0], hops)
            return
        if (client := self.clients.get(to)) is not None:
            client(payload, source)
            return
        verdict = self.steer(source, to, False)
        if isinstance(verdict, tuple):
            if (host := self.hosts.get(verdict)) is not None:
                host.receive(payload, source)
            return
        ip = source[0]
        ports = self.ports_at(verdict, ip, is_tcp=False) if isinstance(verdict, int) else []
        if ports:
            port = self._choose(ports, source)
            if self.is_admitted(port, source[0]):
                port.receive(payload, source, to[0], hops)


def _any(ip: str) -> str:
    """Return the wildcard address of a family."""
    return _ANY_SIX if is_six(ip) else _ANY


class OneThread:
    """Simulates a ThreadPoolExecutor with one thread, which runs calls in their order."""

    def __init__(self, *_options: object, **_names: object) -> None:
        self.free_at = 0.0

    def shutdown(self, **_options: object) -> None:
        pass


class AgentLoop(ProcessLoop):
    """The event loop of one agent; it has only the methods that a whole agent uses."""

    def __init__(self, process: Process, timeline: Timeline, rng: Random) -> None:
        super().__init__(process, timeline, rng)
        self.tasks: list[asyncio.Task[Any]] = []
        """All started tasks, because tasks of a dead process mustn't be collected early."""

    def create_task(
        self, coro: Any, *, name: Any = None, context: object = None
    ) -> asyncio.Task[Any]:
        task = Task(self, coro, name)
        self.tasks.append(task)
        return task

    def make_task(self, coro: Any) -> asyncio.Task[Any]:
        return self.create_task(coro)

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        return self.call_soon(callback, *args)

    def run_in_executor(
        self, executor: Any, call: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run a thread's call later, in one step; return the future of its result."""
        future = self.create_future()
        machine = self._process.machine
        at = self._timeline.now + (machine.thread_s() if isinstance(machine, AgentMachine) else 0.0)
        if isinstance(executor, OneThread):
            at = executor.free_at = max(at, executor.free_at + _NEXT_S)
        self._timeline.at(at, self._call_in_thread, future, call, args)
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
        """End the tasks of a dead process."""
        for task in self.tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done():
                # A task that awaits during its clean-up raises an error.
                with contextlib.suppress(BaseException):
                    task.get_coro().close()
            elif not task.cancelled():
                task.exception()
        self.tasks.clear()


class AgentMachine(NodeMachine):
    """A node with agents."""

    slow_s = 0.0
    """The delay of calls in threads from now on."""

    def thread_s(self) -> float:
        """Return the delay of the next call in a thread."""
        return self.slow_s + _CALL_S * self._random()


class AgentProcess(Process):
    """The process of an agent."""

    loop: AgentLoop

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine, CONTROL, name)
        self.loop = AgentLoop(self, machine.timeline, machine.rng)
        self.kernel = AgentKernel(self, machine, machine.rng)

    def forget(self) -> None:
        """Drop all callbacks of the process, including callbacks that would run after its exit."""
        self.is_dead = True
        with self:
            self.loop.end()


class AgentKernel(ProcessKernel):
    """The system calls of an agent's process."""

    def socket(
        self, family: int = 2, kind: int = 1, proto: int = 0, fileno: int | None = None
    ) -> ProcessSocket:
        found = super().socket(family, kind, proto, fileno)
        if not isinstance(found.core.shared if hasattr(found.core, "shared") else None, Port):
            return found
        return AgentSocket(self, family, kind, proto, found.fileno())


class AgentSocket(ProcessSocket):
    """Simulates a socket.socket that can be bound."""

    __slots__ = ()

    def bind(self, address: Any) -> None:
        if self.family == socket.AF_INET6:
            address = (address[0] or _ANY_SIX, address[1])
        super().bind((address[0] or _ANY, address[1]))
