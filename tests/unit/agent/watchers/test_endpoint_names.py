"""What the agent does beside lookups of names: networks, the last state, this node's addresses."""

import pytest

from userspace_proxy import Proxy
from userspace_proxy.agent.rounds.changes import Progress, SyncCounters
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.watchers.endpoint_names import EndpointNames
from userspace_proxy.causes.names import nodes_unknown
from userspace_proxy.cluster import Store
from userspace_proxy.lookup.node_resolver import NodeResolver
from userspace_proxy.model import Handling
from userspace_proxy.model.endpoint_names import EndpointName, Lookup, NameState
from userspace_proxy.sources.kubernetes import KubernetesSource, node_addresses
from userspace_proxy_testing.fakes.api_server import FakeApiServer

from ..samples import service
from ..watched import turn, until

ALLOWED = {"allow_endpoint_names": ("example.com",)}


class Rounds:
    """What the component needs of the sync loop."""

    def __init__(self):
        self.progress = Progress(SyncCounters())

    def publish(self, snapshot):
        self.progress.add(snapshot)


class Node:
    """The component, and one Service with an endpoint by name."""

    def __init__(self, source="manifests", **options):
        self.rounds = Rounds()
        self.store = Store()
        self.supervisor = Supervisor()
        self.answered = []
        """What followed from the source's own snapshots."""
        self.names = EndpointNames(self.rounds, self._answer, source, Options(**options))

    async def __aenter__(self):
        await self.names.start(self.supervisor)
        return self

    async def __aexit__(self, *_exc):
        await self.supervisor.stop()
        await self.names.close()

    def store_names(self):
        names = (EndpointName("db.example.com", 5433),)
        self.store.put_service(service("db", "10.96.0.1", handling=Handling(names=names)))

    async def put(self):
        self.store_names()
        self.names.publish(self.store.snapshot())
        await until(lambda: not self.rounds.progress.is_expecting())

    def _answer(self, snapshot):
        self.answered.append(snapshot)
        self.rounds.publish(snapshot)

    @property
    def slice(self):
        (state,) = self.rounds.progress.latest.services.values()
        (item,) = state.slices
        return item

    def ips(self):
        return [endpoint.ip for endpoint in self.slice.endpoints]

    def states(self):
        return [problem.state for problem in self.slice.problems]


@pytest.fixture
def answers(monkeypatch):
    """The addresses that each name has."""
    found = []

    async def look_up(_resolver, _host, families):
        return Lookup({family: tuple(found) for family in families}, 300)

    monkeypatch.setattr(NodeResolver, "look_up", look_up)
    return found


async def test_names_are_looked_up_where_they_are_allowed(answers):
    answers.append("203.0.113.1")
    async with Node(**ALLOWED) as node:
        await node.put()
        await until(lambda: node.ips() == ["203.0.113.1"])


async def test_without_permission_nothing_is_looked_up(answers):
    answers.append("203.0.113.1")
    async with Node() as node:
        await node.put()
        for _ in range(5):
            await turn()
        assert node.states() == [NameState.NOT_ALLOWED]


async def test_in_a_cluster_the_networks_of_pods_and_the_nodes_must_be_known(answers):
    answers += ["10.244.0.7", "203.0.113.1"]
    async with Node("kubernetes", **ALLOWED) as node:
        await node.put()
        assert node.states() == [NameState.NETWORKS_UNKNOWN]
    async with Node("kubernetes", cluster_networks=("10.244.0.0/16",), **ALLOWED) as node:
        await node.put()
        assert node.states() == [NameState.NODES_UNKNOWN]
        node.store.set_node_addresses(frozenset())
        await node.put()
        await until(lambda: node.ips() == ["203.0.113.1"])


async def test_names_do_not_lead_to_the_networks_of_services(answers):
    answers.append("10.97.0.7")
    async with Node(service_cluster_ip_range=("10.96.0.0/12",), **ALLOWED) as node:
        await node.put()
        await until(lambda: node.states() == [NameState.FORBIDDEN])


async def test_names_of_the_last_state_are_judged_at_the_start():
    node = Node()
    node.store_names()
    node.rounds.publish(node.store.snapshot())
    async with node:
        assert node.states() == [NameState.NOT_ALLOWED]
        assert node.answered == []
        await node.put()
        assert len(node.answered) == 1


DB = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {
        "namespace": "shop",
        "name": "db",
        "annotations": {"userspace-proxy.io/endpoints": "db.example.com:5432"},
    },
    "spec": {
        "type": "ClusterIP",
        "clusterIP": "10.96.0.1",
        "clusterIPs": ["10.96.0.1"],
        "ports": [{"port": 5432, "protocol": "TCP"}],
    },
}


class Cluster:
    """Proxies of an API server with one Service that has an endpoint by name."""

    UNKNOWN = nodes_unknown("db.example.com")

    def __init__(self, folder):
        self.api = FakeApiServer()
        self._options = Options(
            state_dir=str(folder), cluster_networks=("10.244.0.0/16",), **ALLOWED
        )

    async def __aenter__(self):
        await self.api.__aenter__()
        self.api.put(DB)
        return self

    async def __aexit__(self, *exc):
        await self.api.__aexit__(*exc)

    def proxy(self):
        source = KubernetesSource(master=self.api.url)
        return Proxy(source=source, options=self._options)

    def shown(self, proxy):
        """Return the endpoints that serve, or else the cause."""
        (port,) = proxy.status().ports or (None,)
        return port and ([e.address for e in port.endpoints if e.is_usable] or port.cause)

    async def lists_of_nodes(self, count):
        await self.api.until(lambda api: sum("/nodes" in line for line in api.requests) == count)


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    async with Cluster(tmp_path) as cluster:
        yield cluster


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        pytest.param(503, ["203.0.113.1:5432"], id="outage"),
        pytest.param(403, Cluster.UNKNOWN, id="no-right"),
    ],
)
async def test_a_restart_does_not_interrupt_names_unless_the_right_is_gone(
    cluster, answers, code, shown, monkeypatch
):
    monkeypatch.setattr(node_addresses, "_RETRY_S", 0.05)
    answers.append("203.0.113.1")
    async with cluster.proxy() as proxy:
        await until(lambda: cluster.shown(proxy) == ["203.0.113.1:5432"])
    cluster.api.refuse("nodes", code, times=1_000_000)
    async with cluster.proxy() as proxy:
        await cluster.lists_of_nodes(3)
        await until(lambda: proxy.status().source.is_synced)
        await proxy.settled()
        await until(lambda: cluster.shown(proxy) == shown)
