"""The measurements of one agent: one row each, which may fail independently.

Rule 1: an effect is observed by a client: the first connection that another endpoint answers, that
no endpoint answers, or that an endpoint answers again.
Rule 2: the time of an effect starts when the benchmark's own watch delivers the change, because the
API server's time before that isn't the agent's. Both times are recorded.
"""

from __future__ import annotations

import json
import random
import re
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from userspace_proxy.plane.messages import REPORT_S

from ..metrics import NotMeasured
from ..processes import cpu_seconds, family, memory_bytes
from .agents import Agent
from .command_process import CommandFailed, CommandProcess
from .objects import ECHO_FRONT, Spec
from .prober import REFUSED
from .sources import write_manifest
from .stage import Stage
from .walk import Packet, rules_walked

Values = dict[str, float]

START_S = 180.0
EFFECT_S = 20.0
SAMPLES_AT_START = 100
SETTLE_S = 5.0
CHURN_RATE = 100
LATE_S = 0.02
"""The duration in seconds from which a worker's turn is late."""
CPU_ROUNDS, CPU_S = 5, 2.0
WALKS = 300
_FILE = "probes.yaml"
_BOUND = re.compile(r'\ble="([^"]+)"')


@dataclass(slots=True)
class Scene:
    """The objects with which rows are measured.

    Args:
        agent: The running agent.
        specs: All Services.
        probes: Services for watched changes, which the agent doesn't know yet.
        writer: Writes to the API server; None: the agent reads manifests.
        folder: The folder of the manifests.
        few: The same agent with ten Services, on its own stage.
        seconds: The duration of the churn.
        changes: The number of changes of each kind.
    """

    agent: Agent
    specs: Sequence[Spec]
    probes: Iterator[Spec]
    writer: CommandProcess | None
    folder: Path
    few: Agent | None
    few_specs: Sequence[Spec] = ()
    seconds: float = 60.0
    changes: int = 20

    @property
    def stage(self) -> Stage:
        """The stage of the agent."""
        return self.agent.stage


def start(scene: Scene) -> Iterator[Values]:
    """Measure the time from process start until some Services are served, then dial all."""
    rng = random.Random(3)
    plain = [spec.ip for spec in scene.specs if not spec.echo]
    some = [plain[0], *rng.sample(plain, min(SAMPLES_AT_START, len(plain))), plain[-1]]
    began = scene.agent.start()
    served = scene.stage.prober.do("wait_for_all", ips=some, seconds=START_S)["at"]
    asked = scene.stage.prober.do("count_unanswered", ips=plain, seconds=START_S)
    yield {"start_s": served - began, **asked, "start_cpu_s": cpu_seconds(scene.agent.pids())}


def memory(scene: Scene) -> Iterator[Values]:
    """Measure the user memory and the CPU time of all processes while the agent is idle."""
    _settle(scene.agent)
    began = cpu_seconds(scene.agent.pids()), time.monotonic()
    _wait(SETTLE_S)
    used = cpu_seconds(scene.agent.pids()) - began[0]
    pids = scene.agent.pids()
    yield {
        "memory_mb": memory_bytes(pids) / 1e6,
        "control_mb": memory_bytes([scene.agent.pid]) / 1e6,
        "idle_cpu": used / (time.monotonic() - began[1]),
    }


def endpoint(scene: Scene) -> Iterator[Values]:
    """Replace a Service's endpoint, which changes no rule."""
    with _added_service(scene) as spec:
        for number in range(scene.changes):
            letter = "ba"[number % 2]
            yield _effect(scene, spec, [letter], partial(_put_endpoints, scene, spec, letter))


def none_some(scene: Scene) -> Iterator[Values]:
    """Remove the last endpoint, or add the first one."""
    with _added_service(scene) as spec:
        for number in range(scene.changes):
            letters, want = [("", REFUSED), ("a", "a")][number % 2]
            yield _effect(scene, spec, [want], partial(_put_endpoints, scene, spec, letters))


def new_service(scene: Scene) -> Iterator[Values]:
    """Add a Service whose slice exists."""
    made = []
    try:
        for _ in range(scene.changes):
            spec = next(scene.probes)
            made.append(spec)
            _add_slice(scene, spec)
            yield _effect(scene, spec, ["a"], partial(_add_service, scene, spec))
    finally:
        _remove(scene, made)


def churn(scene: Scene) -> Iterator[Values]:
    """Make a hundred changes per second while a client sends a request per millisecond."""
    assert scene.writer is not None, "only with an API server"
    with _added_service(scene) as spec:
        yield _churn(scene, scene.writer, spec)


def _churn(scene: Scene, writer: CommandProcess, spec: Spec) -> Values:
    before = scene.agent.metrics()
    cpu = cpu_seconds([scene.agent.pid]), cpu_seconds(scene.agent.pids())
    asker = CommandProcess(scene.stage.client, "benchmarks.scale.prober")
    began = time.monotonic()
    try:
        asker.begin("keep_asking", ip=spec.ip, seconds=scene.seconds, every_s=0.001)
        said = writer.do(
            "churn",
            seconds=scene.seconds,
            rate=CHURN_RATE,
            count=len(scene.specs),
            seed=int(began),
        )
        if said["problem"]:
            print(f"a write failed: {said['problem']}")
        behind = _effect(scene, spec, ["b"], partial(_put_endpoints, scene, spec, "b"))
        took = time.monotonic() - began
        control = cpu_seconds([scene.agent.pid]) - cpu[0]
        everything = cpu_seconds(scene.agent.pids()) - cpu[1]
        asked = asker.finish()
    finally:
        asker.close()
    values = {
        "rate": said["rate"],
        "failed": said["failed"],
        "write_ms": said["write_p50"] * 1e3,
        "behind_ms": behind["effect_ms"],
        "control_cpu": control / took,
        "all_cpu": everything / took,
        "asked_p99_ms": asked["p99"] * 1e3,
        "asked_max_ms": asked["max"] * 1e3,
        "memory_after_mb": memory_bytes(scene.agent.pids()) / 1e6,
    }
    return {**values, **_turns(before, scene.agent.metrics())}


def connection(scene: Scene) -> Iterator[Values]:
    """Count the rules that a new connection passes, and measure all CPU time for it."""
    assert scene.few is not None, "no agent with ten Services"
    many, few = _walks(scene.agent, scene.specs), _walks(scene.few, scene.few_specs)
    rules = {"rules": max(many), "rules_median": median(many), "rules_few": max(few)}
    rules["rules_ratio"] = rules["rules"] / rules["rules_few"]
    for _ in range(CPU_ROUNDS):
        few_us = _cpu_each(scene.few, scene.few_specs[-1])
        many_us = _cpu_each(scene.agent, scene.specs[-1])
        yield {**rules, "cpu_us": many_us, "cpu_few_us": few_us, "cpu_ratio": many_us / few_us}


def edit(scene: Scene) -> Iterator[Values]:
    """Rewrite a manifest with one Service and another endpoint."""
    with _added_service(scene) as spec:
        for number in range(scene.changes):
            letter = "ba"[number % 2]
            yield _effect(scene, spec, [letter], partial(_put_endpoints, scene, spec, letter))


ROWS: dict[str, Callable[[Scene], Iterator[Values]]] = {
    "start": start,
    "memory": memory,
    "endpoint": endpoint,
    "none_some": none_some,
    "new_service": new_service,
    "churn": churn,
    "connection": connection,
    "edit": edit,
}


def _effect(
    scene: Scene, spec: Spec, want: Sequence[str], change: Callable[[], dict[str, float]]
) -> Values:
    """Make a change while a client dials; return the times until it affected the client."""
    prober = scene.stage.prober
    prober.begin("wait_until", ip=spec.ip, want=want, seconds=EFFECT_S)
    # Let the prober see the old state first, for a random time that isn't a multiple of any period.
    _wait(random.uniform(0.2, 0.4))
    try:
        times = change()
    except CommandFailed:
        # The prober's answer belongs to this change, so read it.
        with suppress(CommandFailed):
            prober.finish()
        raise
    seen = prober.finish()["at"]
    return {
        "effect_ms": (seen - times["event"]) * 1e3,
        "whole_ms": (seen - times["sent"]) * 1e3,
        "api_ms": (times["event"] - times["sent"]) * 1e3,
    }


@contextmanager
def _added_service(scene: Scene) -> Iterator[Spec]:
    """Add a Service for watched changes, which is served until the block ends."""
    spec = next(scene.probes)
    if scene.writer is None:
        write_manifest(scene.folder / _FILE, [spec.service(), spec.slice()])
    else:
        _add_slice(scene, spec)
        _add_service(scene, spec)
    try:
        scene.stage.prober.do("wait_until", ip=spec.ip, want=["a"], seconds=EFFECT_S)
        yield spec
    finally:
        _remove(scene, [spec])


def _remove(scene: Scene, specs: Sequence[Spec]) -> None:
    """Remove Services from the API server, if any, because the agent's descriptors are limited."""
    if scene.writer is not None:
        for spec in specs:
            for path in (f"{spec.service_path}/{spec.name}", spec.slice_path):
                # An object that wasn't created needn't be removed.
                with suppress(CommandFailed):
                    scene.writer.do("write", method="DELETE", path=path, name="", watched=False)


def _put_endpoints(scene: Scene, spec: Spec, letters: str) -> dict[str, float]:
    endpoints = spec.endpoints(letters)
    if scene.writer is None:
        began = time.monotonic()
        write_manifest(
            scene.folder / _FILE, [spec.service(), {**spec.slice(), "endpoints": endpoints}]
        )
        return {"sent": began, "event": time.monotonic()}
    answer: dict[str, float] = scene.writer.do(
        "write",
        method="PATCH",
        path=spec.slice_path,
        name=spec.slice()["metadata"]["name"],
        body={"endpoints": endpoints},
    )
    return answer


def _add_slice(scene: Scene, spec: Spec) -> None:
    assert scene.writer is not None, "only with an API server"
    path, _, name = spec.slice_path.rpartition("/")
    scene.writer.do("write", method="POST", path=path, name=name, body=spec.slice())


def _add_service(scene: Scene, spec: Spec) -> dict[str, float]:
    assert scene.writer is not None, "only with an API server"
    answer: dict[str, float] = scene.writer.do(
        "write", method="POST", path=spec.service_path, name=spec.name, body=spec.service()
    )
    return answer


def _walks(agent: Agent, specs: Sequence[Spec]) -> list[int]:
    client = agent.stage.client
    some = random.Random(4).sample(list(specs), min(WALKS, len(specs)))
    return rules_walked(
        agent.stage.node,
        [Packet(str(client.ip), spec.ip, spec.front, client.host_interface) for spec in some],
    )


def _cpu_each(agent: Agent, echo: Spec) -> float:
    """Return the CPU time per connection in µs: client, worker, endpoints, and the kernel.

    The control process carries no connection, and the row ``memory`` measures its idle CPU time.
    """
    stage = agent.stage
    workers = [pid for pid in agent.pids() if pid != agent.pid]
    pids = [*workers, *(p for pid in stage.backend_pids for p in family(pid))]
    before = cpu_seconds(pids) + _children_seconds()
    done = stage.client.run(
        [
            stage.goload,
            "echo",
            f"--to={echo.ip}:{ECHO_FRONT}",
            "--parallel=8",
            f"--seconds={CPU_S:g}",
        ]
    )
    used = cpu_seconds(pids) + _children_seconds() - before
    # If all clients are refused, the count is zero.
    count: int = json.loads(done.stdout)["count"]
    if not count:
        raise NotMeasured(f"nobody answers at {echo.ip}:{ECHO_FRONT}")
    return used / count * 1e6


def _children_seconds() -> float:
    """Return the CPU time of exited child processes, such as the client's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _turns(before: dict[tuple[str, str], float], after: dict[tuple[str, str], float]) -> Values:
    """Return the metrics of workers' turns and of sync rounds between two reads."""
    name = "userspace_proxy_worker_loop_iteration_duration_seconds"
    grown = {key: value - before.get(key, 0.0) for key, value in after.items()}
    total = sum(value for (n, _), value in grown.items() if n == f"{name}_count")
    values: Values = {}
    if total:
        within = sum(
            value
            for (n, labels), value in grown.items()
            if n == f"{name}_bucket" and f'le="{LATE_S}"' in labels
        )
        bounds = [
            float(_BOUND.findall(labels)[0])
            for (n, labels), value in grown.items()
            if n == f"{name}_bucket" and value >= total
        ]
        values |= {
            "turns": total,
            "late_turns": total - within,
            "turn_at_most_ms": min(bounds, default=0.0) * 1e3,
        }
    rounds = "kubeproxy_sync_proxy_rules_duration_seconds"
    if count := grown.get((f"{rounds}_count", ""), 0.0):
        values["rounds"] = count
        values["round_ms"] = grown[f"{rounds}_sum", ""] / count * 1e3
    return values


def _settle(agent: Agent) -> None:
    """Wait, for a minute at most, until an agent is idle: its first rounds and reports are over.

    Workers report their counts every REPORT_S. The report after 10,000 first connections takes half
    a second, which must not count as idle time.
    """
    deadline = time.monotonic() + 60
    quiet_since = time.monotonic()
    while time.monotonic() < min(deadline, quiet_since + 2 * REPORT_S):
        before = cpu_seconds(agent.pids())
        _wait(1.0)
        if cpu_seconds(agent.pids()) - before >= 0.1:
            quiet_since = time.monotonic()


def _wait(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - what is measured is what happens meanwhile
