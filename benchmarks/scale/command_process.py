"""Helper processes in the namespaces, which read commands line by line.

    benchmark ──{"do": "…", …}──▶ CommandProcess ──{"result": …} or {"error": "…"}──▶ benchmark

A socket belongs to the namespace in which it was created, and a thread of the benchmark would share
the interpreter with the measurement. CLOCK_MONOTONIC is the same in all processes, so times of
different processes can be compared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from userspace_proxy.errors import SandboxError
from userspace_proxy_testing.sandbox import Namespace

Command = Callable[..., Any]


class CommandFailed(SandboxError):
    """A helper's command failed."""


class CommandProcess:
    """One helper process in a namespace.

    Args:
        where: The namespace; the process ends when the namespace closes.
        module: The module that it runs, whose ``main`` calls ``serve``.
        words: The module's arguments.
    """

    def __init__(self, where: Namespace, module: str, *words: str) -> None:
        self.name = f"{module.rpartition('.')[2]} in {where.name}"
        self._process = where.popen(
            [sys.executable, "-m", module, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def begin(self, do: str, **arguments: Any) -> None:
        """Send a command, whose result ``finish`` returns; raise CommandFailed if that fails."""
        assert self._process.stdin is not None, "the helper has no pipe"
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as exc:
            raise CommandFailed(f"cannot {do}: {self.name} is gone") from exc

    def finish(self) -> Any:
        """Return the result; there is no timeout, because commands have deadlines.

        Raises:
            CommandFailed: The command failed, or the process is gone.
        """
        assert self._process.stdout is not None, "the helper has no pipe"
        line = self._process.stdout.readline()
        if not line:
            raise CommandFailed(f"{self.name} is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise CommandFailed(answer["error"])
        return answer["result"]

    def do(self, do: str, **arguments: Any) -> Any:
        """Send a command, and return its result."""
        self.begin(do, **arguments)
        return self.finish()

    def close(self) -> None:
        """End the process. Idempotent."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.kill()
        self._process.wait()


def serve(commands: Mapping[str, Command]) -> None:
    """Run the commands from standard input until it ends, and print each result."""
    for line in sys.stdin:
        words = json.loads(line)
        try:
            answer = {"result": commands[words.pop("do")](**words)}
        except Exception as exc:  # noqa: BLE001 - the caller gets any error as a reply
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps(answer), flush=True)
