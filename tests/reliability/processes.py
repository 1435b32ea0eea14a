"""Rows about the proxy's own processes: killed, suspended, restarted."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

from tests.cluster.waiting import wait_for
from tests.node.agents import ContainedAgent
from tests.node.load import pass_time

from .evidence import LogLine, Metric, NoLiveness
from .rig import Rig
from .row import Group, Limits

GROUP = Group("Processes")

RESTARTS = Metric("worker_restarts")
KILLED = LogLine("exited (signal 9), restarting it")
STARTED = LogLine("plan applied")
RESTARTED = LogLine("the control process exited (signal 9), restarting it")
DRAINED_S = 30.0
# Seconds from each start to the next kill; None to kill the proxy as soon as it serves.
LIVES_S = (None, 0.1, 0.2, 0.3, 0.4, None, 0.5, None)
REPLACED = Limits(same_processes=False, log_lines=20)


def worker_pids(rig: Rig) -> list[int]:
    return [worker["pid"] for worker in rig.agent.status()["workers"]]


@GROUP.row(
    "one of two workers is killed (SIGKILL)",
    Limits(failed=0.05, other_failed=3, back_s=3.0, same_processes=False),
    [RESTARTS, KILLED],
    not_promised="connections of the killed worker end",
)
def worker_killed(rig: Rig) -> Iterator[None]:
    os.kill(worker_pids(rig)[0], signal.SIGKILL)
    yield


@GROUP.row(
    "one of two workers stops (SIGSTOP)",
    Limits(
        failed=0.5,
        other_failed=60,
        fault_s=4.0,
        same_processes=False,
        slowest_s=3.0,
        other_p99_ms=3000.0,
    ),
    [RESTARTS],
    not_promised="its connections, and those in its queue, end",
)
def worker_hangs(rig: Rig) -> Iterator[None]:
    os.kill(worker_pids(rig)[0], signal.SIGSTOP)
    yield


@GROUP.row(
    "the control process stops (SIGSTOP) for 3 s",
    Limits(fault_s=3.0, back_s=3.0),
    [NoLiveness()],
)
def control_process_hangs(rig: Rig) -> Iterator[None]:
    os.kill(rig.agent.pid, signal.SIGSTOP)
    yield
    os.kill(rig.agent.pid, signal.SIGCONT)


@GROUP.row(
    "the control process is killed, and is started again after a few seconds",
    REPLACED,
    [NoLiveness()],
)
def control_process_killed(rig: Rig) -> Iterator[None]:
    rig.agent.kill_control()
    yield
    rig.agent.start_until_ready()


class ContainedRig(Rig):
    """A node whose proxy has its own PID namespace, as in a container."""

    agent_type = ContainedAgent
    agent: ContainedAgent


@GROUP.row(
    "in a container (a PID namespace) the control process is killed",
    Limits(same_processes=False, log_lines=20),
    [RESTARTED],
    rig=ContainedRig,
    not_promised="with `shareProcessNamespace`, `hostPID` or another init, the container ends with "
    "its control process",
)
def control_process_killed_in_container(rig: ContainedRig) -> Iterator[None]:
    os.kill(rig.agent.control, signal.SIGKILL)
    yield


@GROUP.row(
    "an upgrade: a new proxy takes over from the running one (`--take-over`)",
    REPLACED,
    [STARTED],
)
def restart_take_over(rig: Rig) -> Iterator[None]:
    old, rig.agent.process = rig.agent.process, None
    assert old is not None
    rig.agent.flags = (*rig.agent.flags, "--take-over")
    rig.agent.start_until_ready()
    yield
    old.wait(DRAINED_S)


@GROUP.row(
    "a restart by the service manager: SIGUSR1, then a new start",
    REPLACED,
    [STARTED],
)
def restart_signal(rig: Rig) -> Iterator[None]:
    rig.agent.send(signal.SIGUSR1)
    rig.agent.wait()
    rig.agent.start_until_ready()
    yield


@GROUP.row(
    "a plain stop (SIGTERM) and start",
    Limits(failed=1.0, other_failed=1000, fault_s=0.0, same_processes=False),
    [STARTED],
    not_promised="rules are removed, so between stop and start clients find no Service",
)
def restart_plain(rig: Rig) -> Iterator[None]:
    rig.agent.stop()
    rig.agent.start_until_ready()
    yield


@GROUP.row(
    f"all processes are killed at once {len(LIVES_S)} times, most of them while they start; "
    "the proxy is started again at once",
    Limits(
        failed=1.0,
        slowest_s=2.0,
        other_failed=1000,
        fault_s=0.0,
        log_lines=30,
        same_processes=False,
        other_p99_ms=2000.0,
    ),
    [STARTED],
    not_promised="while nothing runs, rules stay and clients are refused at once; once the proxy "
    "listens, they wait for the first plan",
)
def all_killed(rig: Rig) -> Iterator[None]:
    client = rig.testbed["pod"]

    def is_served() -> bool:
        # Clients wait for the first plan before they are served.
        with contextlib.suppress(OSError):
            return bool(client.get(rig.web.address))
        return False

    took_s = []
    for life_s in LIVES_S:
        rig.agent.kill()
        began = time.monotonic()
        rig.agent.start()
        if life_s is None:
            wait_for("service", is_served)
            took_s.append(time.monotonic() - began)
        else:
            pass_time(life_s)
    shown = ", ".join(f"{seconds:.2f}" for seconds in took_s)
    rig.figures.append(f"served {shown} s after the start")
    wait_for("a healthy agent", rig.agent.is_healthy)
    yield
