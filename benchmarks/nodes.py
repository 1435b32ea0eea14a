"""``python -m benchmarks.nodes``: measures the cost of reading the agents of a large cluster.

    fake API server, 1,000 agents ◀──port-forwards── userspace-proxy nodes, a process of its own

It prints, next to the goals:

    first    seconds from the start of the command to the table of all nodes
    memory   the peak memory of this process
    bytes    bytes that a healthy node's port-forward carries until then, counted by the API server
    idle     the same per second of ``nodes --watch``, while nothing happens on the nodes
    CPU      the command's CPU seconds for the first table, and cores while it watches

The agents run in the server's process on the same cores, so the command has less CPU than in a real
cluster. They answer like real agents whose Services are all served; while nothing happens, they
report their own CPU time at the requested pace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from userspace_proxy.facts.processes import ProcessFacts
from userspace_proxy_testing.fakes.agent_answers import STATUS, FakeAgent
from userspace_proxy_testing.fakes.agent_status import plan_digests, service_objects, status_of
from userspace_proxy_testing.fakes.agents import FakeAgents
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from .runner import raise_descriptor_limit

NODES, SERVICES = 1000, 2000
IDLE_S = 15.0
SETTLE_S = 5.0
"""The seconds within which the streams begin after the first table."""
WITHIN_S = 60.0
GOALS = {"first": 10.0, "memory": 400.0, "bytes": 20_000.0, "idle": 200.0}
_UNITS = {"first": "s", "memory": "MiB", "bytes": "bytes", "idle": "bytes/s"}
_EVERY_S = 5.0
_TICK_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Usage:
    """The resources that a process has used."""

    memory_mib: float = 0.0
    cpu_s: float = 0.0

    def look(self, pid: int) -> None:
        """Return the resources that a process has used; it may have exited."""
        try:
            status = Path(f"/proc/{pid}/status").read_text()
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                self.memory_mib = int(line.split()[1]) / 1024
        user, system = stat.rpartition(")")[2].split()[11:13]
        self.cpu_s = (int(user) + int(system)) / _TICK_S


class FakeCluster:
    """A fake API server's cluster, with an agent on each node."""

    def __init__(self, api: FakeApiServer, nodes: Sequence[str], services: int) -> None:
        objects = service_objects(services, nodes=nodes)
        for item in objects:
            api.put(item)
        self.nodes = nodes
        self._agents = FakeAgents(api)
        whole = status_of(objects, nodes[0], now=time.time())
        summary = whole.summarised()
        digests = plan_digests(objects)
        self.answers = [
            FakeAgent(msgspec.structs.replace(summary, node=node), digests=digests)
            for node in nodes
        ]
        for node, answer in zip(nodes, self.answers, strict=True):
            self._agents.add(node, answer)

    @property
    def passed_bytes(self) -> float:
        """The average number of bytes that a node's port-forwards have carried."""
        return sum(map(self._agents.passed_bytes, self.nodes)) / len(self.nodes)

    async def live(self) -> None:
        """Make each agent report its CPU time at the requested pace, until cancelled."""
        second = 0
        while True:
            await asyncio.sleep(1)  # noqa: TID251 - what is measured is a time
            second += 1
            for answer in self.answers:
                if second % _pace(answer) == 0:
                    process = ProcessFacts(0.002 * second, 70_000_000)
                    facts = msgspec.structs.replace(answer.facts, now=time.time(), process=process)
                    answer.change(facts)


def _pace(answer: FakeAgent) -> int:
    asked = [one for one in answer.requests if one.path == STATUS and "watch" in one.query]
    every = asked[-1].query.get("every", [f"{_EVERY_S:.0f}"]) if asked else ["1"]
    return int(every[0])


@asynccontextmanager
async def command(kubeconfig: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``nodes``, yield its process, and kill it at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "userspace_proxy", "nodes", f"--kubeconfig={kubeconfig}", *words),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "NO_PROXY": "*"},
        limit=64 << 20,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def measure_first(cluster: FakeCluster, kubeconfig: Path) -> Mapping[str, float]:
    """Return the figures of a command that prints all nodes once; exit if some don't answer."""
    before, began, usage = cluster.passed_bytes, time.monotonic(), Usage()
    async with (
        asyncio.timeout(WITHIN_S),
        command(kubeconfig, "-o", "json", f"--timeout={WITHIN_S:.0f}s") as process,
    ):
        assert process.stdout is not None
        reading = asyncio.create_task(process.stdout.read())
        while not reading.done():
            usage.look(process.pid)
            await asyncio.wait((reading,), timeout=0.02)
        seconds = time.monotonic() - began
        answered = json.loads(reading.result())["answered"]
    if answered < len(cluster.nodes):
        raise SystemExit(f"only {answered} of {len(cluster.nodes)} nodes have answered")
    passed = cluster.passed_bytes - before
    return {
        "first": seconds, "memory": usage.memory_mib, "bytes": passed, "CPU": usage.cpu_s,
    }  # fmt: skip


async def measure_idle(cluster: FakeCluster, kubeconfig: Path) -> Mapping[str, float]:
    """Return the bytes per second, memory and cores of a watch while nothing changes."""
    async with (
        asyncio.timeout(2 * WITHIN_S),
        command(kubeconfig, "--watch", f"--timeout={WITHIN_S:.0f}s") as process,
    ):
        assert process.stdout is not None
        await process.stdout.readline()
        reading = asyncio.create_task(process.stdout.read())
        await asyncio.wait((reading,), timeout=SETTLE_S)
        before, began, usage = cluster.passed_bytes, time.monotonic(), Usage()
        usage.look(process.pid)
        cpu_s = usage.cpu_s
        await asyncio.wait((reading,), timeout=IDLE_S)
        usage.look(process.pid)
        seconds = time.monotonic() - began
        reading.cancel()
        return {
            "idle": (cluster.passed_bytes - before) / seconds,
            "memory": usage.memory_mib,
            "cores": (usage.cpu_s - cpu_s) / seconds,
        }


async def run(nodes: int, services: int) -> int:
    """Run the measurements and print the figures; return 1 if a goal is missed, otherwise 0."""
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as folder:
        async with FakeApiServer() as api:
            cluster = FakeCluster(api, [f"node-{number}" for number in range(nodes)], services)
            kubeconfig = Path(folder) / "config"
            kubeconfig.write_text(json.dumps(_kubeconfig(api.url)))
            living = asyncio.create_task(cluster.live())
            first = await measure_first(cluster, kubeconfig)
            idle = await measure_idle(cluster, kubeconfig)
            living.cancel()
    figures = {**first, "idle": idle["idle"], "memory": max(first["memory"], idle["memory"])}
    print(f"{nodes:,} nodes, {services:,} Services, load {os.getloadavg()[0]:.1f}")
    missed = 0
    for name, goal in GOALS.items():
        is_met = figures[name] <= goal
        missed += not is_met
        verdict = "met" if is_met else "MISSED"
        print(f"{name:8}{figures[name]:>10,.1f} {_UNITS[name]:8} goal {goal:,.0f}: {verdict}")
    print(f"CPU     {first['CPU']:>10,.1f} s for the first table, {idle['cores']:.2f} cores after")
    return 1 if missed else 0


def _kubeconfig(url: str) -> Mapping[str, object]:
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
    }


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes")
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--services", type=int, default=SERVICES)
    given = parser.parse_args()
    return asyncio.run(run(given.nodes, given.services))


if __name__ == "__main__":
    sys.exit(main())
