"""The values by which nodes are compared: digests of the applied state, settings, CPU, memory."""

import os
from dataclasses import replace

from userspace_proxy.agent.rounds.changes import Progress, SyncCounters
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.watchers.compared import Compared
from userspace_proxy.config import Settings
from userspace_proxy.facts import StatusFacts, WorkerFacts
from userspace_proxy.facts.node import PlanFacts
from userspace_proxy.plan.digest import FORM, digests_of, summary_of
from userspace_proxy.plane.workers import PlaneState

from ..samples import Cluster

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Node:
    """An agent's progress, and processes that exist only as files of a fake /proc."""

    def __init__(self, folder, source="kubernetes", settings=None):
        self.cluster = Cluster()
        self.progress = Progress(SyncCounters())
        self.workers = ()
        self._proc = folder
        self.write(os.getpid(), seconds=0, pages=0)
        options = Options(config=settings.as_rows() if settings else ())
        self.compared = Compared(self.progress, self, source, options, folder)

    def state(self):
        """Return the state of the plane."""
        workers = (WorkerFacts(index, pid) for index, pid in self.workers)
        return PlaneState(0, 0, is_accepting=True, workers=tuple(workers))

    def write(self, pid, *, seconds, pages):
        """Write the files of a process that has used this CPU time and memory."""
        half = seconds * TICKS_PER_S // 2
        fields = ["S", *["0"] * 10, str(half), str(half), *["0"] * 8, str(pages)]
        (self._proc / str(pid)).mkdir(exist_ok=True)
        (self._proc / str(pid) / "stat").write_text(f"{pid} (a) b) {' '.join(fields)}")

    def bring_into_force(self, snapshot):
        self.progress.add(snapshot)
        self.progress.end(self.progress.begin())
        return digests_of(snapshot.services)

    async def look(self):
        await self.compared.refresh()
        facts = StatusFacts()
        self.compared.show(facts)
        return facts


async def test_digests_are_computed_from_the_applied_snapshot(tmp_path):
    node = Node(tmp_path)
    digests = node.bring_into_force(node.cluster.serve("web", "10.96.0.1", "192.0.2.1"))
    # A change that hasn't been applied yet isn't in the digests.
    node.progress.add(node.cluster.serve("web", "10.96.0.1", "192.0.2.2"))
    facts = await node.look()
    assert facts.plan == PlanFacts(FORM, summary_of(digests)[0], 1, summary_of(digests)[1])
    assert {name: one for bucket in facts.digests for name, one in bucket.items()} == digests


async def test_before_the_first_plan_there_are_no_digests(tmp_path):
    node = Node(tmp_path)
    node.progress.add(node.cluster.serve("web", "10.96.0.1", "192.0.2.1"))
    assert (await node.look()).plan == PlanFacts()


async def test_a_plan_that_other_nodes_cannot_reproduce_has_no_digests(tmp_path):
    from_pods = Settings(endpoints_from_pods=True)
    for node in (Node(tmp_path, "manifests"), Node(tmp_path, settings=from_pods)):
        node.bring_into_force(node.cluster.serve("web", "10.96.0.1", "192.0.2.1"))
        assert (await node.look()).plan == PlanFacts()


async def test_only_non_default_settings_are_shown(tmp_path):
    settings = replace(Settings(), workers=2, drain_s=5.0, cluster_cidr=("10.244.0.0/16",))
    shown = (await Node(tmp_path, settings=settings).look()).settings
    assert shown == {"workers": 2, "cluster_cidr": "10.244.0.0/16"}


async def test_cpu_and_memory_of_all_processes_are_summed(tmp_path):
    node = Node(tmp_path)
    node.write(os.getpid(), seconds=4, pages=10)
    node.workers = ((0, 70_001), (1, 0))
    node.write(70_001, seconds=6, pages=5)
    process = (await node.look()).process
    assert (process.cpu_s, process.memory_bytes) == (10.0, 15 * PAGE_BYTES)


async def test_cpu_time_of_an_exited_worker_still_counts(tmp_path):
    node = Node(tmp_path)
    node.workers = ((0, 70_001),)
    node.write(70_001, seconds=6, pages=5)
    await node.look()
    node.workers = ((0, 70_002),)
    node.write(70_002, seconds=2, pages=5)
    assert (await node.look()).process.cpu_s == 8.0


async def test_unreadable_processes_are_omitted(tmp_path):
    node = Node(tmp_path)
    node.write(os.getpid(), seconds=4, pages=10)
    node.workers = ((0, 70_001),)
    process = (await node.look()).process
    assert (process.cpu_s, process.memory_bytes) == (4.0, 10 * PAGE_BYTES)
