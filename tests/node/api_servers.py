"""An API server on a node's loopback, in its own process, which can be killed and restarted.

python -m tests.node.api_servers FILE N      serves a file's objects; this is its Nth start

Each line of its standard input is a list of objects that it then adds. A restarted server has newer
resourceVersions than before, and the earlier ones have expired.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.cluster.waiting import wait_for
from tests.node.clients import DEADLINE_S, Sockets
from tests.node.manifests import Service
from userspace_proxy_testing.fakes.api_server import FakeApiServer
from userspace_proxy_testing.sandbox import SandboxNode

PORT = 6443
LINE_MAX = 64 << 20


class ApiServer:
    """A fake API server on the node's loopback, which can be restarted.

    Args:
        folder: The folder for its objects.
    """

    def __init__(self, node: SandboxNode, sockets: Sockets, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{PORT}"
        self._node = node
        self._sockets = sockets
        self._objects = folder / "objects.json"
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def start(self, *services: Service) -> None:
        self.start_with(o for service in services for o in service.objects())

    def start_with(self, objects: Iterable[Mapping[str, Any]]) -> None:
        """Start the server with these objects."""
        self._objects.write_text(json.dumps(list(objects)))
        self._starts += 1
        command = [sys.executable, "-m", __name__, str(self._objects), str(self._starts)]
        self._process = self._node.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        wait_for("an API server", self._is_listening)

    def put(self, *objects: Mapping[str, Any]) -> None:
        """Add or replace objects; return when watches have them."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(objects) + "\n")
            self._process.stdin.flush()
            assert self._process.stdout.readline() == "done\n"

    def kill(self) -> None:
        """Kill the server; idempotent."""
        if self._process is not None:
            self._process.kill()
            # Don't wait for the end of the pipes, which child processes may have open.
            self._process.wait(DEADLINE_S)
            for pipe in filter(None, (self._process.stdin, self._process.stdout)):
                pipe.close()
            self._process = None

    def hang(self) -> None:
        """Suspend the server (SIGSTOP): the kernel accepts connections, but nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Make the server answer again after :meth:`hang`."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _is_listening(self) -> bool:
        with self._sockets.tcp() as sock:
            return sock.connect_ex(("127.0.0.1", PORT)) == 0


async def _serve(path: Path, starts: int) -> None:
    api = FakeApiServer(port=PORT)
    for item in json.loads(path.read_text()) * starts:
        api.put(item)
    api.forget()
    lines = asyncio.StreamReader(limit=LINE_MAX)
    protocol = asyncio.StreamReaderProtocol(lines)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    async with api:
        while line := await lines.readline():
            for item in json.loads(line):
                api.put(item)
            sys.stdout.write("done\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
