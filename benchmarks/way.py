"""One way by which a client's bytes reach a pod: what all of them have."""

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
    """One way, in a site of its own.

    Args:
        site: Where it lives.
        tools: Programs of ours.
        folder: For its files; empty.
    """

    key: str
    label: str
    serves = ALL
    descriptors_each = 0
    """What it needs for one idle connection; 0: it has none."""
    preserves_client_address = True
    """Whether backends see the client's own address; see ``seen``."""
    is_optional = False
    """Whether it is left out where its programs can't be had."""

    def __init__(self, site: Site, tools: Tools, folder: Path) -> None:
        self.site = site
        self.tools = tools
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    @classmethod
    def find_programs(cls) -> None:
        """Find the programs that it runs, before anything is started.

        Raises:
            ToolMissing: One isn't there.
        """

    def open(self) -> None:
        """Set up what stays, once; ``start`` comes next. Most need rules."""
        for rule in self.rules():
            self.iptables("-t", "nat", "-A", "PREROUTING", *rule)

    def rules(self) -> Iterator[list[str]]:
        """Yield the rules that bring the Service's traffic here."""
        yield from ()

    def iptables(self, *words: str) -> None:
        """Run iptables in the node's namespace."""
        self.site.node.run(
            [find_program("iptables-legacy"), *words],
            env={**os.environ, "XTABLES_LOCKFILE": str(self.folder / "xtables.lock")},
        )

    def command(self) -> list[str]:
        """Return what to run on the node; empty: nothing."""
        return []

    def environment(self) -> dict[str, str]:
        """Return what the command's environment has besides ours."""
        return {}

    def address(self, port: str) -> str:
        """Return what clients dial for a port, as IP:PORT."""
        return f"{SERVICE_IP}:{PORTS[port].front}"

    def as_client(self, command: Sequence[str]) -> list[str]:
        """Return a command as a client of this way runs it."""
        return [*command]

    def start(self) -> None:
        """Start the command, and wait until a client is answered.

        Raises:
            SandboxError: Nobody answered in time; the message has its last words.
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
        """Wait until a client is answered, behind all who are in the queue.

        Raises:
            SandboxError: Nobody answered in time; the message has its last words.
        """
        probe = [self.site.goload, "probe", f"--seconds={READY_S}", "--echo", self.address("echo")]
        if "udp" in self.serves:
            probe += ["--udp", self.address("udp")]
        try:
            self.site.client.run(self.as_client(probe), timeout=READY_S + 5)
        except SandboxError as exc:
            raise SandboxError(f"cannot measure {self.label}: {exc}; {self.last_words()}") from exc

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
        """Kill the command, children included, and start it afresh; without one do nothing.

        Killed, because then our rules stay as a peer's do. A packet that came while there are
        none would leave an entry in the connection tracking table by which later connections
        from the same port miss the rules.
        """
        if self._process is not None:
            # A worker of nginx would outlive its master, and keep the sockets.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self.start()

    @property
    def has_died(self) -> bool:
        """Whether the command has exited."""
        return self._process is not None and self._process.poll() is not None

    def last_words(self) -> str:
        """Return the last line that the command wrote."""
        log = self._log()
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        return lines[-1] if lines else "the log is empty"

    def pids(self) -> list[int]:
        """Return its processes; empty if the kernel does all the work."""
        return family(self._process.pid) if self._process else []

    def _log(self) -> Path:
        return self.folder / "log"


def matching(port: Port) -> list[str]:
    """Return the part of an iptables rule that matches what clients dial for a port."""
    return ["-d", SERVICE_IP, "-p", port.protocol.lower(), "--dport", str(port.front)]
