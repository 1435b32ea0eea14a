"""Rows about memory limits, which the kernel enforces by killing processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.cluster.waiting import wait_for
from tests.node.agents import Agent
from tests.node.manifests import Service, with_endpoints

from .control_groups import ControlGroup
from .evidence import LogLine, Metric, Problem
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Memory")

BULK = Service("bulk", "10.96.0.30", target=9000)
READERS = 400
MIB = 1024 * 1024
# A stalled reader needs 0.2 to 0.25 MiB, so this is enough for 200 readers.
ROOM_BYTES = 48 * MIB
AT_FIRST_BYTES = 1024 * MIB
FOUND_S = 15.0


class GroupedAgent(Agent):
    """An agent that runs in a control group."""

    group: ControlGroup

    @property
    def command(self) -> list[str]:
        return self.group.command(super().command)


class MemoryRig(Rig):
    """A node whose proxy has a memory limit; a Service sends as many bytes as requested."""

    agent_type = GroupedAgent
    agent: GroupedAgent
    flags = ("--workers=1",)

    def prepare(self) -> None:
        self.testbed.add_pods("bulk", source=BULK.target)
        self.agent.group = ControlGroup("memory")
        self.resources.callback(self.agent.group.close)
        # Processes that start before the limit is set read it only 10 s later.
        self.agent.group.limit_memory(AT_FIRST_BYTES)

    def start(self) -> None:
        super().start()
        self.agent.group.limit_memory(self.agent.group.used_memory() + ROOM_BYTES)
        wait_for("the limit", self._knows_limit, deadline_s=FOUND_S, hint=self.agent.log)

    def _knows_limit(self) -> bool:
        limit: int = self.agent.status()["memory"]["limit_bytes"]
        return 0 < limit < AT_FIRST_BYTES

    def services(self) -> tuple[Service, ...]:
        return (*super().services(), with_endpoints(BULK, [self.testbed.ip("bulk")]))


@GROUP.row(
    f"{READERS} readers that stall need more than a memory limit (cgroup) allows",
    Limits(slowest_s=1.0, other_p99_ms=1000, back_s=20.0),
    [
        Metric("connections_evicted_for_memory"),
        Metric("memory_short"),
        Problem("Memory: "),
        LogLine("memory limit nearly reached"),
    ],
    rig=MemoryRig,
    not_promised="the readers that hold the most are reset; others wait while the buffers fill",
)
def memory_limit(rig: MemoryRig) -> Iterator[None]:
    laptop = rig.testbed["laptop"]
    for _ in range(READERS):
        # The reader may be reset before it has sent its request.
        with contextlib.suppress(ConnectionError):
            laptop.dial(BULK.address).sendall(b"100000000\n")
    yield
    killed = rig.agent.group.killed_processes()
    if killed:
        rig.complaints.append(f"the kernel killed {killed} processes")
    laptop.hang_up()
