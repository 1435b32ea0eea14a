"""A process that runs what asks API servers, where no workers are needed."""

from __future__ import annotations

from typing import Any

from ..control.loop import ProcessLoop
from ..control.machine import Machine, Process


class _Loop(ProcessLoop):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.tasks: list[Any] = []

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> Any:
        """Part of asyncio.AbstractEventLoop, for asyncio.TaskGroup."""
        task = self.make_task(coro)
        self.tasks.append(task)
        return task


class ApiProcess(Process):
    """A process whose loop has all that the source uses."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(machine, "agent", name)
        self.loop: _Loop = _Loop(self, machine.timeline, machine.rng)

    def forget(self) -> None:
        """Part of Process; tasks that didn't begin are closed, too."""
        super().forget()
        for task in self.loop.tasks:
            coro = task.get_coro()
            if coro.cr_frame is not None and coro.cr_await is None and not coro.cr_running:
                coro.close()
