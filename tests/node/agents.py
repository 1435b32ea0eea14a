"""The agent under test: ``userspace-proxy run`` as a process in a sandbox's node."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cluster.waiting import wait_for
from tests.node.clients import Sockets, http_get
from tests.node.manifests import Manifests, Service
from tests.node.processes import child_pids, is_alive
from userspace_proxy.kernel.own_namespace import own_namespace_environment
from userspace_proxy_testing.sandbox import SandboxNode

# An agent starts in less than one second, or in a minute on an emulated, busy processor
# (tests/kernels). The wait ends early if the process exits.
READY_S = 240.0
HEALTH, ADMIN = 10256, 10249
CLEANUP = (sys.executable, "-m", "userspace_proxy", "cleanup")


class Agent:
    """An agent (``userspace-proxy run``) in the node's namespace; it can be started repeatedly.

    Args:
        folder: The folder for log, manifests and the lock of the legacy tables.
        steering: The flag's value; with ``-on-a-node``, the namespace looks like a real node's;
            ``local-without-nftables`` also hides nf_tables from the agent.
    """

    def __init__(
        self, node: SandboxNode, sockets: Sockets, folder: Path, steering: str, *flags: str
    ) -> None:
        self.node = node
        self.manifests = Manifests(folder / "manifests")
        self.log_path = folder / "agent.log"
        self.environment = agent_environment(node, folder)
        if "-" in steering:
            # Pretend that the network namespace, like a real node's, wasn't created for the agent.
            for name in own_namespace_environment(node.pid):
                del self.environment[name]
        if steering == "local-without-nftables":
            # The agent imports the package before the working directory is searched.
            folders = folder_without_nftables(folder), Path(__file__).parents[2]
            self.environment["PYTHONPATH"] = os.pathsep.join(map(str, folders))
        self.steering = steering.partition("-")[0]
        self.source = f"--manifests={self.manifests.folder}"
        self.flags = flags
        self.process: subprocess.Popen[str] | None = None
        self._sockets = sockets

    @property
    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "userspace_proxy", "run"),
            self.source,
            f"--steering={self.steering}",
            "--metrics-detail=endpoint",
            "--hostname-override=node-1",
            # Don't read the saved state of other tests; a later flag may name a folder.
            "--state-dir=",
            *self.flags,
        ]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def control(self) -> int:
        """The PID of the control process, whose children are the workers."""
        return self.pid

    def start(self, stderr: int | None = None) -> None:
        """Start the agent; append its log to ``log_path``, or write it to another descriptor."""
        assert self.process is None, "the agent runs already"
        with self.log_path.open("a") as stream:
            self.process = self.node.popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stderr=stream if stderr is None else stderr,
                env=self.environment,
            )

    def start_until_ready(self, stderr: int | None = None) -> None:
        """Start the agent and wait until it is healthy, and so has applied its first plan."""
        self.start(stderr)
        wait_for("a healthy agent", self.is_healthy, deadline_s=READY_S, hint=self.log)

    def is_healthy(self) -> bool:
        """Return whether ``/healthz`` returns 200; fail if the process has exited."""
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return self.read("/healthz", port=HEALTH)[0] == 200
        except OSError as exc:
            # While the kernel splits the routing tables local and main for a namespace's first
            # rule, it finds no local address: 9 of 150 attempts then failed with EINVAL.
            if exc.errno not in (errno.ECONNREFUSED, errno.EINVAL):
                raise
            return False

    def dial_the_lock(self) -> None:
        """Dial the node's lock, like an agent that finds the lock taken."""

        def is_queued() -> bool:
            with self.unix_socket() as sock:
                try:
                    sock.connect("\0userspace-proxy")
                except BlockingIOError:
                    # The accept queue is full until the agent's loop runs.
                    return False
                return True

        wait_for("room in the queue of the lock", is_queued)

    def unix_socket(self) -> socket.socket:
        return self._sockets.unix()

    def loopback_socket(self) -> socket.socket:
        """Return a TCP socket of the node's namespace."""
        return self._sockets.tcp()

    def listener(self, port: int) -> socket.socket:
        """Return a listener of another program on a port of the node; the caller closes it."""
        sock = self._sockets.tcp()
        sock.bind(("0.0.0.0", port))
        sock.listen()
        return sock

    def read(self, path: str, *, port: int = ADMIN) -> tuple[int, str]:
        """Return status and body of the agent's answer on the node's loopback."""
        return http_get(self._sockets.tcp(), ("127.0.0.1", port), path)

    def status(self) -> dict[str, Any]:
        """Return the JSON of ``/api/v1/status``."""
        answer: dict[str, Any] = json.loads(self.read("/api/v1/status")[1])
        return answer

    def port(self, service: str, **which: str) -> dict[str, Any]:
        """Return a Service's port from the status.

        Args:
            which: Fields that select one of several ports or families.
        """
        (port,) = (
            port
            for port in self.status()["ports"]
            if port["service"] == service and which.items() <= port.items()
        )
        return dict(port)

    def frontends(self, service: str) -> dict[str, str]:
        """Return the target of each frontend of a Service; empty if it isn't served."""
        return {
            frontend["address"]: frontend["target"]
            for port in self.status()["ports"]
            if port["service"] == service
            for frontend in port["frontends"]
        }

    def wait_until_settled(self, *services: Service) -> None:
        """Wait until exactly these Services with these endpoints are applied."""
        wanted = sorted(
            (service.name, sorted(f"{ip}:{service.target}" for ip in service.endpoints))
            for service in services
        )

        def is_in_force() -> bool:
            status = self.status()
            shown = sorted(
                (port["service"], sorted(e["address"] for e in port["endpoints"]))
                for port in status["ports"]
            )
            # The status lists a plan shortly before the kernel has its rules.
            return shown == wanted and not status["sync"]["waiting_since"]

        wait_for(f"{wanted} to be in force", is_in_force, hint=self.log)

    def log(self) -> str:
        return self.log_path.read_text()

    def kill(self) -> None:
        """Kill the agent and its workers with SIGKILL; wait until they have exited. Idempotent."""
        if self.process is not None:
            # A suspended agent can't start another worker in the meantime.
            self.process.send_signal(signal.SIGSTOP)
            children = child_pids(self.process.pid)
            self.kill_control()
            for child in filter(is_alive, children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            wait_for("the agent's workers to exit", lambda: not any(map(is_alive, children)))

    def kill_control(self) -> None:
        """Kill the control process with SIGKILL; workers continue."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process is not None
        status = self.process.wait(READY_S)
        self.process = None
        return status

    def stop(self) -> int:
        """Stop the agent with SIGTERM and return its exit status."""
        self.send(signal.SIGTERM)
        return self.wait()

    def run(
        self,
        *flags: str,
        command: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the agent, or another command, on the node until it exits; return the result."""
        return self.node.run(
            [*(command or self.command), *flags],
            check=False,
            timeout=READY_S,
            env={**self.environment, **(env or {})},
        )


def agent_environment(node: SandboxNode, folder: Path) -> dict[str, str]:
    """Return the environment of an agent with all rights in the node's namespace."""
    return {
        **os.environ,
        **own_namespace_environment(node.pid),
        "XTABLES_LOCKFILE": str(folder / "xtables.lock"),
    }


# A kernel without nf_tables rejects its messages, but not conntrack's.
_WITHOUT_NFTABLES = """
import errno
from userspace_proxy.kernel.netlink import Requests

def refuse(method):
    def ask(self, request, *more):
        if int.from_bytes(request[4:6], "little") >> 8 == 10:
            raise OSError(errno.EINVAL, "Invalid argument")
        return method(self, request, *more)
    return ask

Requests.ask, Requests.list_all = refuse(Requests.ask), refuse(Requests.list_all)
"""


def folder_without_nftables(folder: Path) -> Path:
    """Create a folder for PYTHONPATH that makes the kernel appear to lack nf_tables."""
    made = folder / "without-nftables"
    made.mkdir(exist_ok=True)
    (made / "sitecustomize.py").write_text(_WITHOUT_NFTABLES)
    return made


class ContainedAgent(Agent):
    """An agent in its own PID namespace; ``process`` is the program that creates the namespace."""

    @property
    def command(self) -> list[str]:
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return [*unshare, *super().command]

    @property
    def first(self) -> int:
        (pid,) = child_pids(self.pid)
        return pid

    @property
    def control(self) -> int:
        """The PID of the only child that has children: orphaned workers have none."""
        (pid,) = (pid for pid in child_pids(self.first) if child_pids(pid))
        return pid
