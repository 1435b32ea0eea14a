"""The event loop of one simulated process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from ..timeline import Timeline, VirtualLoop
from .system_calls import Died

if TYPE_CHECKING:
    from .machine import Process


class ProcessLoop(VirtualLoop):
    """What a process uses of asyncio.AbstractEventLoop, in virtual time, while it lives."""

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
        self.after_callback = self._end_batch

    def _end_batch(self) -> None:
        if self._process.is_dead:
            # A task keeps what is raised within it, and the rest of the iteration would follow.
            raise Died
        self._process.kernel.end_batch()

    def _report_bug(self, what: str) -> None:
        self._process.machine.violate(f"{self._process.name}: {what}")

    def _has_event(self, fd: int) -> bool:
        kernel = self._process.kernel
        if fd < 0:
            return kernel.is_writable(~fd)
        # As ``is_ready``, without its call: this is asked most often of all.
        file = kernel.files.get(fd)
        return file is not None and file.is_readable

    # -- what asyncio and the product call ---------------------------------------------------------

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def make_task(self, coro: Any) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self)  # type: ignore[arg-type]

    def create_task(
        self, coro: Any, *, name: object = None, context: object = None
    ) -> asyncio.Task[Any]:
        """Part of asyncio.AbstractEventLoop."""
        return self.make_task(coro)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        """Part of asyncio.AbstractEventLoop."""
        return super().call_soon(callback, *args)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        """Part of asyncio.AbstractEventLoop."""
        return super().call_later(delay, callback, *args)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        """Part of asyncio.AbstractEventLoop."""
        return super().call_later(when - self.time(), callback, *args)

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Part of asyncio.AbstractEventLoop."""
        super().add_reader(fd, partial(callback, *args) if args else callback)

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        """Part of asyncio.AbstractEventLoop."""
        super().add_reader(~fd, callback)

    def remove_writer(self, fd: int) -> bool:
        """Part of asyncio.AbstractEventLoop."""
        return super().remove_reader(~fd)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Part of asyncio.AbstractEventLoop."""
        if not self._process.is_dead:
            self._report_bug(f"{context['message']}: {context.get('exception')!r}")

    # -- running -----------------------------------------------------------------------------------

    def wake(self) -> None:
        """Run an iteration soon."""
        if self._is_scheduled or self.is_running or self._process.is_dead:
            return
        self._is_scheduled = True
        start = max(self._timeline.now, self.held_until)
        latency_s = self._process.machine.speed.latency_s
        self._timeline.at(start + latency_s * self._random(), self._iterate)

    def _iterate(self) -> None:
        if self._process.is_dead:
            return
        if self._timeline.now >= self.held_until:
            self._process.is_hung = False
        with self._process:
            super()._iterate()
