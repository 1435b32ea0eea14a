"""An API server on a node's loopback, in a process of its own: it can be killed and come back.

python -m tests.node.api_servers FILE N      serves a file's objects; this is its Nth start

A restarted server has newer resourceVersions than before, and doesn't know the earlier ones.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.cluster.waiting import wait_for
from tests.node.clients import Sockets
from tests.node.manifests import Service
from userspace_proxy_testing.fakes.api_server import FakeApiServer
from userspace_proxy_testing.sandbox import SandboxNode

PORT = 6443


class ApiServer:
    """A fake API server on the node's loopback, as often as it is started.

    Args:
        folder: For its objects.
    """

    def __init__(self, node: SandboxNode, sockets: Sockets, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{PORT}"
        self._node = node
        self._sockets = sockets
        self._objects = folder / "objects.json"
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self, *services: Service) -> None:
        objects = [o for service in services for o in service.objects()]
        self._objects.write_text(json.dumps(objects))
        self._starts += 1
        command = [sys.executable, "-m", __name__, str(self._objects), str(self._starts)]
        self._process = self._node.popen(command)
        wait_for("an API server", self._is_listening)

    def kill(self) -> None:
        """Kill it; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Stop it (SIGSTOP): its kernel accepts connections, and nothing answers."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Have it answer after :meth:`hang`."""
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
    async with api:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
