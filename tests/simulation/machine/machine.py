"""The simulated node: its processes, their shared files, and which process runs now."""

from __future__ import annotations

import errno
from asyncio import events
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from random import Random
from typing import Any

from ..network import Address, Network
from ..polling import Epoll
from ..streams import CONNECTING, Stream
from ..timeline import Timeline
from .files import WORKER, Port, Rendezvous, Sharers, UnixEnd
from .loop import ProcessLoop
from .system_calls import Died, ProcessKernel

# The first PID: no process of the real machine has a PID that high.
_FIRST_PID = 10_000_000


@dataclass(frozen=True)
class Speed:
    """The speed of the node's processes, and the sizes of their sockets' buffers."""

    latency_s: float = 0.0003
    """The longest time for which a runnable loop waits for the processor."""
    start_s: float = 0.05
    """The longest time from a worker's start until it reads its first message."""
    room: int = 4096
    """The buffer size of a Unix socket, in bytes."""


class Process:
    """A control process or a worker."""

    def __init__(self, machine: Machine, kind: str, name: str) -> None:
        machine.pids += 1
        self.machine = machine
        self.kind = kind
        self.name = name
        self.pid = machine.pids
        self.loop = ProcessLoop(self, machine.timeline, machine.rng)
        self.kernel = ProcessKernel(self, machine, machine.rng)
        self.is_dead = False
        self.status = 0
        self.is_hung = False
        """Whether it hangs; otherwise it may be slow."""
        self.dies_at_call = self.dies_at_message = 0
        """The number of the call or message at which it dies; 0 for none."""
        self.calls = self.messages = 0
        self.main: Any = None
        """WorkerMain, or the object that has the plane."""
        self.pidfds: list[Process] = []
        """Processes that watch its exit by a pidfd."""
        self.task: Any = None
        self.parent: Process | None = None
        machine.processes.append(self)

    def __enter__(self) -> None:
        """Make this process current, and its loop the running one; its death ends the block."""
        machine = self.machine
        machine.interrupted.append(machine.current)
        machine.current = self
        events._set_running_loop(self.loop)  # type: ignore[arg-type]

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> bool:
        before = self.machine.current = self.machine.interrupted.pop()
        events._set_running_loop(None if before is None else before.loop)  # type: ignore[arg-type]
        return kind is Died

    def start(self, run: Callable[[], Any]) -> None:
        """Start a coroutine whose result is the exit status."""
        self.loop.call_soon(self._begin, run)

    def _begin(self, run: Callable[[], Any]) -> None:
        self.task = self.loop.make_task(run())
        self.task.add_done_callback(self._on_done)

    def _on_done(self, task: Any) -> None:
        if self.is_dead or task.cancelled():
            return
        if (exc := task.exception()) is not None:
            self.machine.violate(f"{self.name} ended by {exc!r}")
        self.die(task.result() if exc is None else 1)

    def die(self, status: int) -> None:
        """Terminate the process and close its descriptors; a negative status is a signal."""
        if self.is_dead:
            return
        self.is_dead = True
        self.status = status
        how = f"exit status {status}" if status >= 0 else f"signal {-status}"
        self.machine.note(f"{self.name}: ended by {how}")
        self.machine.dying(self)
        files, self.kernel.files = self.kernel.files, {}
        for file in files.values():
            if hasattr(file, "close") and not isinstance(file, Epoll):
                file.close()
        for other in self.pidfds:
            other.loop.wake()

    def forget(self) -> None:
        """Drop all callbacks of the process, including callbacks that would run after its exit."""
        self.is_dead = True
        if self.task is not None:
            with self:
                self.task.get_coro().close()


class Machine(Network):
    """The node's network, and all processes.

    Args:
        rng: Draws all choices that aren't in the plan.
    """

    def __init__(self, timeline: Timeline, rng: Random, speed: Speed) -> None:
        super().__init__(timeline, rng, delay_s=0.0005)
        self.rng = rng
        self.speed = speed
        self.pids = _FIRST_PID
        self.cookies = 0
        self.processes: list[Process] = []
        self.ports: dict[Port, None] = {}
        self.sharers: defaultdict[tuple[Address | None, bool], Sharers] = defaultdict(Sharers)
        """Sockets by the address that they are bound to, and whether they are TCP sockets."""
        self.others: dict[tuple[Address, bool], None] = {}
        """Addresses where another program listens, and whether by TCP."""
        self.rendezvous: dict[str, Rendezvous] = {}
        self.current: Process | None = None
        self.interrupted: list[Process | None] = []
        """Processes that continue when the current one's iteration ends."""
        self.violations: list[str] = []
        self.fails_to_start = 0
        """The number of further workers that fail to start."""
        self.stopped_listening: Callable[[Port, str], None] = lambda _port, _cause: None
        self.dying: Callable[[Process], None] = lambda _process: None
        self.accepted: Callable[[Process, Port, Stream], None] = lambda *_: None
        self.received: Callable[[Process], None] = lambda _process: None
        self.refused: Callable[[Stream], None] = lambda _client: None
        self.started: Callable[[Process], None] = lambda _process: None
        self.left_unread: Callable[[UnixEnd], None] = lambda _end: None
        """Called with an end that is closed after its peer, and that may have unread bytes."""

    def violate(self, what: str) -> None:
        """Record a violation."""
        self.note(f"VIOLATION: {what}")
        self.violations.append(what)

    @property
    def kernel(self) -> ProcessKernel:
        """The system calls of the current process."""
        assert self.current is not None, "a process runs"
        return self.current.kernel

    def process_of(self, pid: int) -> Process:
        """Return the process with a PID; PIDs follow the order in which processes start."""
        return self.processes[pid - _FIRST_PID - 1]

    def alive(self, kind: str) -> list[Process]:
        return [each for each in self.processes if each.kind == kind and not each.is_dead]

    def take_port(self, address: Address, *, is_tcp: bool, for_s: float) -> bool:
        """Occupy a port for another program for a while; return False if it isn't free."""
        other = address, is_tcp
        same = (p for p in self.ports if p.is_tcp == is_tcp and p.port == address[1])
        is_free = not any(address[0] == "0.0.0.0" or p.local == address for p in same)
        if not is_free or other in self.others:
            return False
        self.others[other] = None
        self.timeline.after(for_s, self.others.pop, other, None)
        return True

    def run_short(
        self, process: Process, call: str, number: int, spared: int, for_s: float
    ) -> None:
        """Make one kind of system call fail in a process for a while.

        Args:
            number: The error number.
            spared: The number of calls that succeed before the first failure.
        """
        self.note(f"{process.name}: {call} fails with {errno.errorcode[number]} for {for_s:g} s")
        process.kernel.fails, process.kernel.spared = {call: number}, spared
        self.timeline.after(for_s, process.kernel.fails.clear)

    def start_child(self, run: Callable[[int], Any]) -> tuple[Child, Any]:
        """Start a worker; return it, and the caller's end of a connection to it."""
        parent = self.kernel.process
        self.kernel.enter("clone")
        self.kernel.lack("clone")
        if self.fails_to_start:
            self.fails_to_start -= 1
            raise BlockingIOError(11, "Resource temporarily unavailable")
        name = f"worker {self.pids + 1 - _FIRST_PID}"
        process = Process(self, WORKER, name)
        room = self.speed.room
        process.parent = parent
        ours, theirs = UnixEnd(parent, room), UnixEnd(process, room)
        ours.join(theirs)
        fd = process.kernel.allocate(theirs)
        self.note(f"{parent.name}: starts {name}")
        delay_s = self.speed.start_s * self.rng.random()
        self.timeline.after(delay_s, self._begin, process, partial(run, fd))
        return Child(self, process), self.kernel.open_unix(ours)

    def _begin(self, process: Process, run: Callable[[], Any]) -> None:
        if not process.is_dead:
            self.started(process)
            process.start(run)

    def end_child(self, child: Child, within_s: float) -> int:
        """Wait for a child, kill it at the deadline, and return its exit status."""
        until = self.timeline.now + max(0.0, within_s)
        before = self.current
        while not child.process.is_dead and self.timeline.next_at <= until:
            self.timeline.step()
        self.current = before
        child.kill()
        return child.wait()

    def listeners_at(self, address: Address) -> list[Port]:
        """Return the ports that accept clients of an address."""
        return [p for p in self.ports if p.is_tcp and p.is_listening and p.local == address]

    def _choose(self, ports: list[Port], client: Address) -> Port:
        """Return the socket for a client: as ``plane.reuseport`` does, else a random one."""
        sharers = ports[0].sharers
        if sharers.by_client:
            place = ip_address(client[0]).packed[-1] % sharers.by_client
            if place < len(sharers.ports):
                return sharers.ports[place]
        return ports[self.draw(len(ports))]

    def _arrive_at_node(self, client: Stream) -> None:
        if client.state != CONNECTING:
            return
        assert client.remote is not None, "the client dials no address"
        listening = self.listeners_at(client.remote)
        if not listening:
            self.refused(client)
            client.fail(111)
            return
        assert client.local is not None, "the client has no address"
        port = self._choose(listening, client.local)
        client.joins(port)

    def bind(self, core: Any, address: Address) -> None:
        """Set the local address; ``files`` checks whether a port can be bound."""
        core.local = address

    def forget_datagrams(self, core: Any) -> None:
        if core.local is not None and core.remote is not None:
            self._connected.pop((core.local, core.remote), None)

    def ports_of_datagrams(self, address: Address) -> list[Port]:
        bound = [p for p in self.ports if not p.is_tcp and p.local == address]
        return [p for p in bound if not p.is_deaf]

    def _reach_node(self, payload: bytes, source: Address, to: Address, hops: int) -> None:
        core = self._connected.get((to, source))
        if core is not None:
            core.receive(payload, source, to[0], hops)
            return
        found = self.ports_of_datagrams(to)
        if found:
            self._choose(found, source).receive(payload, source, to[0], hops)


class Child:
    """Simulates subprocess.Popen."""

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine = machine
        self.process = process
        self.pid = process.pid

    def kill(self) -> None:
        self.process.die(-9)

    def wait(self, _timeout: float | None = None) -> int:
        assert self.process.is_dead, "nothing waits for a process that lives"
        return self.process.status
