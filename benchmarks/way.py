"""The base class of ways, by which a client's bytes reach a pod."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from userspace_proxy.errors import SandboxError

from .processes import family
from .sites import PORTS, READY_S, SERVICE_IP, Port, Site
from .tools import Tools, find_program

STOP_S = 10.0

ALL = frozenset(PORTS)
TCP_ONLY = frozenset(name for name, port in PORTS.items() if port.protocol == "TCP")


class Way:
    """One way by which a client's bytes reach a pod, in its own site.

    Args:
        site: The site in which it runs.
        tools: The programs of this repository.
        folder: An empty folder for its files.
    """

    key: str
    label: str
    serves = ALL
    descriptors_each = 0
    """The number of descriptors for an idle connection; 0 if no process holds connections."""
    preserves_client_address = True
    """Whether backends see the client's own address; see ``seen``."""
    is_optional = False
    """Whether the way is omitted if its programs aren't available."""

    def __init__(self, site: Site, tools: Tools, folder: Path) -> None:
        self.site = site
        self.tools = tools
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def find_programs(cls) -> None:
        """Check that the way's programs are installed, before anything is started.

        Raises:
            ToolMissing: A program is missing.
        """

    def open(self) -> None:
        """Do the setup that restarts don't repeat, before ``start``; by default, add the rules."""
        for rule in self.rules():
            self.iptables("-t", "nat", "-A", "PREROUTING", *rule)

    def rules(self) -> Iterator[list[str]]:
        """Yield the iptables rules that direct the Service's traffic to the way."""
        yield from ()

    def iptables(self, *words: str) -> None:
        """Run iptables in the node's namespace."""
        self.site.node.run(
            [find_program("iptables-legacy"), *words],
            env={**os.environ, "XTABLES_LOCKFILE": str(self.folder / "xtables.lock")},
        )

    def command(self) -> list[str]:
        """Return the command to run on the node; empty if there is none."""
        return []

    def environment(self) -> dict[str, str]:
        """Return additional environment variables of the command."""
        return {}

    def address(self, port: str) -> str:
        """Return the address that clients dial for a port, as IP:PORT."""
        return f"{SERVICE_IP}:{PORTS[port].front}"

    def as_client(self, command: Sequence[str]) -> list[str]:
        """Return a command in the form in which a client of this way runs it."""
        return [*command]

    def start(self) -> None:
        """Start the command, and wait until a client is answered.

        Raises:
            SandboxError: No answer arrived in time; the message contains the last log line.
        """
        if command := self.command():
            with self._log().open("w") as log:
                self._process = self.site.node.popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **self.environment()},
                    start_new_session=True,
                )
        self.wait_until_answered()
        self.site.shorten_conntrack()

    def wait_until_answered(self) -> None:
        """Wait until a client is answered, after all clients in the queue.

        Raises:
            SandboxError: No answer arrived in time; the message contains the last log line.
        """
        probe = [self.site.goload, "probe", f"--seconds={READY_S}", "--echo", self.address("echo")]
        if "udp" in self.serves:
            probe += ["--udp", self.address("udp")]
        try:
            self.site.client.run(self.as_client(probe), timeout=READY_S + 5)
        except SandboxError as exc:
            raise SandboxError(
                f"cannot measure {self.label}: {exc}; {self.last_log_line()}"
            ) from exc

    def stop(self) -> None:
        """End the command. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Kill the command and its children, and start it again; do nothing without a command.

        A killed agent leaves its rules, as a peer does. While there are no rules, a packet would
        create a conntrack entry, and later connections from its port would miss the rules.
        """
        if self._process is not None:
            # A worker of nginx would continue without its master, and hold the sockets.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self.start()

    @property
    def has_died(self) -> bool:
        """Whether the command has exited."""
        return self._process is not None and self._process.poll() is not None

    def last_log_line(self) -> str:
        """Return the last line of the command's log."""
        log = self._log()
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1] if lines else "the log is empty"

    def pids(self) -> list[int]:
        """Return the PIDs of the command and its descendants; empty if it isn't running."""
        return family(self._process.pid) if self._process else []

    def _log(self) -> Path:
        return self.folder / "log"


def matching(port: Port) -> list[str]:
    """Return the part of an iptables rule that matches the address that clients dial for a port."""
    return ["-d", SERVICE_IP, "-p", port.protocol.lower(), "--dport", str(port.front)]
