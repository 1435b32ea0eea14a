"""The event loop of one simulated process."""

from __future__ import annotations

import asyncio
from asyncio import events
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from ..timeline import Timeline, VirtualLoop
from .system_calls import Died

if TYPE_CHECKING:
    from .machine import Process


class Task(asyncio.Task[Any]):
    """A task whose order in a set depends on its number, not on its address in memory."""

    def __init__(self, loop: ProcessLoop, coro: Any, name: str | None = None) -> None:
        # Set this before the original constructor runs, because that puts the task into a set.
        self._hash = loop.next_hash()
        super().__init__(coro, loop=loop, name=name)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return self._hash


class Future(asyncio.Future[Any]):
    """A future with a reproducible hash, like :class:`Task`."""

    def __init__(self, loop: ProcessLoop) -> None:
        self._hash = loop.next_hash()
        super().__init__(loop=loop)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return self._hash


class ProcessLoop(VirtualLoop):
    """One process's event loop in virtual time; it has only the methods that the product uses."""

    def __init__(self, process: Process, timeline: Timeline, rng: Random) -> None:
        super().__init__(
            timeline,
            rng,
            timers_first=rng.random() < 0.5,
            is_ready=self._has_event,
            report=self._report_bug,
            after_turn=lambda: None,
        )
        self._process = process
        self._is_reversed = rng.random() < 0.5
        """Whether ready descriptors are handled in reverse order."""
        self._made = 0
        """The number of created tasks and futures."""
        self.after_callback = self._end_batch

    def _end_batch(self) -> None:
        process = self._process
        if process.is_dead:
            # Tasks catch exceptions raised in them, so the rest of the iteration would run.
            raise Died
        process.kernel.end_batch()

    def _report_bug(self, what: str) -> None:
        self._process.machine.violate(f"{self._process.name}: {what}")

    def _has_event(self, fd: int) -> bool:
        kernel = self._process.kernel
        return kernel.is_writable(~fd) if fd < 0 else kernel.is_ready(fd)

    def _all_ready(self) -> list[int]:
        # Like the original, but without a call per descriptor: no other check is as frequent.
        kernel, ready = self._process.kernel, []
        files = kernel.files
        for fd in self._readers:
            if fd < 0:
                if kernel.is_writable(~fd):
                    ready.append(fd)
            elif (file := files.get(fd)) is not None and file.is_readable:
                ready.append(fd)
        if self._is_reversed and len(ready) > 1:
            ready.reverse()
        return ready

    def _is_any_ready(self) -> bool:
        kernel = self._process.kernel
        files = kernel.files
        for fd in self._readers:
            if fd < 0:
                if kernel.is_writable(~fd):
                    return True
            elif (file := files.get(fd)) is not None and file.is_readable:
                return True
        return False

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def next_hash(self) -> int:
        """Return a reproducible hash for a new task or future; hashes don't rise with its age."""
        self._made += 1
        return hash((self._made,))

    def create_future(self) -> asyncio.Future[Any]:
        return Future(self)

    def make_task(self, coro: Any) -> asyncio.Task[Any]:
        return Task(self, coro)

    def create_task(
        self, coro: Any, *, name: object = None, context: object = None
    ) -> asyncio.Task[Any]:
        return self.make_task(coro)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        return self.call_later(when - self.time(), callback, *args)

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        super().add_reader(fd, partial(callback, *args) if args else callback)

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        super().add_reader(~fd, callback)

    def remove_writer(self, fd: int) -> bool:
        return super().remove_reader(~fd)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._process.is_dead:
            self._report_bug(f"{context['message']}: {context.get('exception')!r}")

    def wake(self) -> None:
        """Schedule an iteration soon."""
        if self._is_scheduled or self.is_running or self._process.is_dead:
            return
        self._is_scheduled = True
        start = max(self._timeline.now, self.held_until)
        latency_s = self._process.machine.speed.latency_s
        self._timeline.at(start + latency_s * self._random(), self._iterate)

    def _iterate(self) -> None:
        process = self._process
        if process.is_dead:
            return
        if self._timeline.now >= self.held_until:
            process.is_hung = False
        # Cost: ``with process`` is inlined, because every second event causes an iteration.
        machine, before = process.machine, process.machine.current
        machine.current = process
        events._set_running_loop(self)  # type: ignore[arg-type]
        try:
            super()._iterate()
        except Died:
            pass
        finally:
            machine.current = before
            events._set_running_loop(None if before is None else before.loop)  # type: ignore[arg-type]
