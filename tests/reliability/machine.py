"""Rows about temporary shortages of the machine's resources."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.manifests import Service, with_endpoints

from .control_groups import ControlGroup
from .evidence import LogLine, Metric, Problem
from .footprint import processes
from .rig import WEB, Rig, is_served
from .row import Group, Limits

GROUP = Group("Machine")

NEW = Service("new", "10.96.0.99")
DISK_MIB = 1


def add_service(rig: Rig) -> None:
    rig.testbed.edit(*rig.services(), with_endpoints(NEW, [rig.testbed.ip("one")]))
    wait_for("the new Service", lambda: is_served(rig, NEW.address), hint=rig.agent.log)


def remove_service(rig: Rig) -> None:
    """Remove the added Service, and wait until it is no longer served."""
    rig.testbed.edit(*rig.services())
    wait_for("the end of the Service", lambda: not is_served(rig, NEW.address), hint=rig.agent.log)


class OwnDiskAgent(Agent):
    """An agent with its own mounts, among them a small disk for its log and state."""

    @property
    def command(self) -> list[str]:
        size = f"size={DISK_MIB}m"
        script = f'mount -t tmpfs -o {size} disk "$0"; exec "$@" 2>"$0/agent.log"'
        command = [*super().command, f"--state-dir={self._disk}"]
        return ["unshare", "--mount", "sh", "-ec", script, str(self._disk), *command]

    @property
    def _disk(self) -> Path:
        folder = self.log_path.parent / "disk"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def disk(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self._disk}")

    def log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.disk / "agent.log").read_text()
        return ""

    def remount(self, option: str) -> None:
        """Remount the agent's root read-only (``ro``) or writable (``rw``)."""
        command = ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "mount", "-o"]
        subprocess.run([*command, f"remount,bind,{option}", "/"], check=True)


class OwnDiskRig(Rig):
    """A node whose proxy has its own disk."""

    agent_type = OwnDiskAgent
    agent: OwnDiskAgent


class VerboseRig(OwnDiskRig):
    """A node whose proxy has its own disk, and logs every connection."""

    flags = ("--workers=2", "--connection-log=1")


@GROUP.row(
    "the disk of the log and of the saved state is full, and a Service is added",
    Limits(log_lines=10_000),
    [Metric("log_lines_dropped")],
    rig=VerboseRig,
    not_promised="log lines that can't be written are lost, and counted",
)
def disk_full(rig: OwnDiskRig) -> Iterator[None]:
    ballast = rig.agent.disk / "ballast"
    fill(ballast)
    add_service(rig)
    yield
    ballast.unlink()
    remove_service(rig)


def fill(path: Path) -> None:
    """Write a file that fills the agent's disk."""
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@GROUP.row(
    "the root becomes read-only, a worker dies, and a Service is added",
    Limits(same_processes=False, other_p99_ms=500),
    [Metric("worker_restarts")],
    rig=OwnDiskRig,
    not_promised="connections of the dead worker are reset; new ones wait some tenths of a second",
)
def read_only_root(rig: OwnDiskRig) -> Iterator[None]:
    rig.agent.remount("ro")
    os.kill(rig.agent.status()["workers"][0]["pid"], signal.SIGKILL)
    add_service(rig)
    yield
    rig.agent.remount("rw")
    remove_service(rig)


class PipedAgent(Agent):
    """An agent whose log is a pipe, which a test may not read."""

    def start(self, stderr: int | None = None) -> None:
        assert stderr is None
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        self.stderr = os.fdopen(ours, "rb", buffering=0)
        super().start(theirs)
        os.close(theirs)

    def log(self) -> str:
        """Return the whole log, after reading the output since the last call."""
        with self.log_path.open("ab") as file:
            while text := self.stderr.read():
                file.write(text)
        return super().log()


class UnreadLogRig(Rig):
    """A node whose proxy logs every connection to a pipe."""

    agent_type = PipedAgent
    agent: PipedAgent
    flags = ("--workers=2", "--connection-log=1")

    def start(self) -> None:
        super().start()
        self.resources.callback(self.agent.stderr.close)


@GROUP.row(
    "stderr is a pipe that isn't read, every connection is logged, and a Service is added",
    Limits(log_lines=10_000, fault_s=6.0),
    [],
    rig=UnreadLogRig,
    not_promised="beyond 1 MiB of waiting lines, further ones are dropped, and counted",
)
def log_not_read(rig: Rig) -> Iterator[None]:
    add_service(rig)
    yield
    remove_service(rig)


DAY_S = 86_400

_CLOCK = """
import time
from pathlib import Path
now, path = time.time, Path({path!r})
time.time = lambda: now() + float(path.read_text())
"""


class ClockAgent(Agent):
    """An agent whose control process has an adjustable clock."""

    def start(self, stderr: int | None = None) -> None:
        folder = self.log_path.parent / "clock"
        folder.mkdir(exist_ok=True)
        self.set_clock(0)
        text = _CLOCK.format(path=str(self._offset))
        (folder / "sitecustomize.py").write_text(text)
        self.environment["PYTHONPATH"] = str(folder)
        super().start(stderr)

    def set_clock(self, offset_s: int) -> None:
        """Set the agent's clock to the machine's clock plus this many seconds."""
        draft = self._offset.with_suffix(".draft")
        draft.write_text(str(offset_s))
        draft.replace(self._offset)

    @property
    def _offset(self) -> Path:
        return self.log_path.parent / "offset"


class ClockRig(Rig):
    """A node whose proxy has an adjustable clock."""

    agent_type = ClockAgent
    agent: ClockAgent


@GROUP.row(
    "the control process's clock jumps a day ahead, then two days back; a Service is added",
    Limits(),
    [],
    rig=ClockRig,
)
def clock_jumps(rig: ClockRig) -> Iterator[None]:
    rig.agent.set_clock(DAY_S)
    add_service(rig)

    def is_ahead() -> bool:
        return bool(rig.agent.status()["sync"]["last_done"] > time.time() + DAY_S / 2)

    wait_for("a round by the new clock", is_ahead)
    rig.agent.set_clock(-DAY_S)
    yield
    remove_service(rig)
    rig.agent.set_clock(0)


@GROUP.row(
    "the proxy gets a tenth of one processor",
    Limits(other_p99_ms=700, fault_s=5.0),
    [],
    not_promised="connections wait for the processor: p99 grows to some tenths of a second",
)
def cpu_tenth(rig: Rig) -> Iterator[None]:
    with contextlib.closing(ControlGroup("cpu")) as group:
        group.limit_cpu(0.1)
        group.add(processes(rig.agent.pid))
        yield


@GROUP.row(
    "no process can be started (a limit of processes), and a worker dies",
    Limits(same_processes=False, failed=0.05, other_failed=5, other_p99_ms=300),
    [
        Metric("worker_up"),
        Problem("orker"),
        LogLine("cannot start worker"),
    ],
    not_promised="connections that the dead worker had are reset",
)
def fork_fails(rig: Rig) -> Iterator[None]:
    with contextlib.closing(ControlGroup("pids")) as group:
        group.add(processes(rig.agent.pid))
        group.limit_processes(1)
        os.kill(rig.agent.status()["workers"][0]["pid"], signal.SIGKILL)
        yield


@GROUP.row(
    "all processes stand still for 20 s, as while a machine is suspended",
    Limits(failed=1.0, slowest_s=25, other_failed=2000, other_p99_ms=25_000, fault_s=20.0),
    [],
    not_promised="nothing is served meanwhile; clients that wait 20 s are served then",
)
def suspended(rig: Rig) -> Iterator[None]:
    pids = list(processes(rig.agent.pid))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


MORE = [Service(f"more-{number}", f"10.96.1.{number}") for number in range(1, 61)]
SPARE = 10


@GROUP.row(
    "the control process has 10 descriptors left, and 60 Services are added",
    Limits(),
    [
        Metric("service_port_problem"),
        Problem("Too many open files"),
        LogLine("cannot open listeners"),
    ],
    not_promised="Services that are added wait until there are descriptors",
)
def no_descriptors_control(rig: Rig) -> Iterator[None]:
    before = resource.prlimit(rig.agent.pid, resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path(f"/proc/{rig.agent.pid}/fd").iterdir())
    limit = highest + 1 + SPARE
    resource.prlimit(rig.agent.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    rig.testbed.edit(*rig.services(), *MORE)
    yield
    resource.prlimit(rig.agent.pid, resource.RLIMIT_NOFILE, before)
    rig.testbed.edit(*rig.services())
    rig.agent.wait_until_settled(*rig.services())


class LimitedAgent(Agent):
    """An agent whose processes have few descriptors."""

    limit = 300

    @property
    def command(self) -> list[str]:
        return ["prlimit", f"--nofile={self.limit}:{self.limit}", "--", *super().command]


class FewDescriptorsRig(Rig):
    """A node whose proxy has one worker with 300 descriptors."""

    agent_type = LimitedAgent
    flags = ("--workers=1",)


@GROUP.row(
    "one client's idle connections take all 300 descriptors of the worker",
    Limits(slowest_s=1.5, other_p99_ms=1000),
    [
        Metric("connections_evicted"),
        LogLine("descriptor"),
    ],
    rig=FewDescriptorsRig,
    not_promised="the longest idle connections of the largest client are reset for others",
)
def no_descriptors_worker(rig: Rig) -> Iterator[None]:
    laptop = rig.testbed["laptop"]
    for _ in range(200):
        laptop.dial(WEB.address)
    yield
    laptop.hang_up()
