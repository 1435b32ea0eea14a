"""Nodes whose proxies share in-memory Leases, for tests of scaling to zero."""

from userspace_proxy.model import Handling, Hold, ServiceKey, Workload, WorkloadKind
from userspace_proxy.plane import PortPool
from userspace_proxy.scaling.cordons import Cordons
from userspace_proxy.scaling.holder_lease import HolderLease
from userspace_proxy.scaling.lease_notes import HOLDER, read_counts
from userspace_proxy.scaling.node_lease import NodeLease
from userspace_proxy.scaling.usage import Usage
from userspace_proxy.sources import MemorySource
from userspace_proxy.sources.base import ScaleDown
from userspace_proxy.steering import Bind

from ..agent.samples import Cluster
from ..plane.reports import report_to
from ..sources.shared_leases import LeaseStore

POD = "192.0.2.1"
WEB = ServiceKey("shop", "web")
WORKLOAD = Workload(WorkloadKind.DEPLOYMENT, "web")
IDLE_AFTER_S = 600.0
LABELS = {"app": "web", "tier": "shop"}
"""The labels of all pods of the workload."""
SELECTOR = (("app", "web"),)
ASLEEP_WHEN_IDLE = Handling(hold=Hold(60.0), wake=WORKLOAD, idle_after_s=IDLE_AFTER_S)


class Sleeper(MemorySource):
    """A source that scales to zero once all nodes agree, unless a test forbids it."""

    def __init__(self):
        super().__init__()
        self.reason = ""
        self.asked = 0
        self.slept = []
        self.happenings = []

    def record(self, happening):
        self.happenings.append(happening)

    async def scale_down(self, namespace, workload, may, agree):
        self.asked += 1
        if self.slept:
            return ScaleDown()
        if (reason := may(LABELS)) is not None:
            return ScaleDown(reason=reason)
        if self.reason:
            return ScaleDown(reason=self.reason)
        if not await agree():
            return ScaleDown()
        self.slept.append(f"{namespace} {workload}")
        return ScaleDown(is_asleep=True)


class Node:
    """One node: its Service ports, its Lease, and a holder that may take the shared Lease."""

    def __init__(self, name, world, make, first_port, file=None):
        self.name = name
        self.world = world
        self.served_ports = make(Bind.PROXY_PORT, PortPool(first_port, first_port + 99))
        self.cluster = Cluster()
        self.source = Sleeper()
        self.is_known = True
        self.is_silent = False
        """Whether the node ignores the holder's Lease."""
        self.hurried = []
        self.on_settle = None
        self.cordons = Cordons(self.served_ports, file, clock=world.clock, wall_clock=world.clock)
        leases, usage = world.store.at(name), Usage(self.served_ports, clock=world.clock)
        self.lease = NodeLease(
            leases,
            usage,
            self.cordons,
            refresh=self._refresh,
            is_known=lambda: self.is_known,
            hurry=self.hurried.append,
            settle_s=1.0,
            clock=world.clock,
            pause=self._settle,
        )
        self.holder = HolderLease(
            leases,
            usage,
            self.served_ports,
            self.source,
            lambda: self.cluster.store.snapshot().services,
            identity=name,
            clock=world.clock,
            pause=world.pause,
        )

    async def _refresh(self):
        """Do nothing, because counters are always current in these tests."""

    async def _settle(self, seconds):
        assert seconds == 1.0
        if self.on_settle is not None:
            self.on_settle()

    def serve(
        self, *pods, handling=ASLEEP_WHEN_IDLE, name="web", ip="10.96.0.1", selector=SELECTOR
    ):
        self.served_ports.follow(
            self.cluster.serve(name, ip, *pods, handling=handling, selector=selector)
        )

    def terminate(self, *pods):
        self.served_ports.follow(self.cluster.terminate("web", *pods))

    @property
    def served(self):
        (served,) = self.served_ports.of_service(WEB)
        return served

    @property
    def endpoints(self):
        """The addresses of the endpoints that accept clients."""
        return [endpoint.ip for endpoint in self.served.group.serving.endpoints]

    def report(self, clients=0, **counted):
        """Report waiting clients and counters of the pod, as a worker does."""
        report_to(self.served.group, self.world.now, clients, POD, **counted)

    async def step(self):
        """Run all due work of the node, except the holder's."""
        self.cordons.release_late()
        await self.lease.look()
        lease = self.world.store.leases.get(HOLDER)
        if lease is not None and not self.is_silent:
            self.holder.see(lease)
            await self.lease.follow(read_counts(lease).round)


class World:
    """Several nodes with a shared clock."""

    def __init__(self, make, *names):
        self.now = 100.0
        self.store = LeaseStore(*names)
        self.nodes = [Node(n, self, make, 27000 + 100 * i) for i, n in enumerate(names)]
        for node in self.nodes:
            node.serve(POD)

    def clock(self):
        return self.now

    async def pause(self, seconds):
        """Advance the clock and run all nodes, while the holder waits for their votes."""
        self.now += seconds
        for node in self.nodes:
            await node.step()

    async def run(self, seconds):
        """Advance the clock second by second, and run all due work."""
        for _ in range(int(seconds)):
            self.now += 1.0
            for node in self.nodes:
                await node.step()
            for node in self.nodes:
                await node.holder.look()

    @property
    def slept(self):
        return [what for node in self.nodes for what in node.source.slept]

    @property
    def vote_counts(self):
        return read_counts(self.store.leases[HOLDER])
