"""The agent's part in name lookups: the permitted networks, and names in the saved state."""

import pytest

from userspace_proxy.agent.rounds.changes import Progress, SyncCounters
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.watchers.endpoint_names import EndpointNames
from userspace_proxy.cluster import Store
from userspace_proxy.lookup.node_resolver import NodeResolver
from userspace_proxy.model import Handling
from userspace_proxy.model.endpoint_names import EndpointName, Lookup, NameState

from ..samples import service
from ..watched import turn, until

ALLOWED = {"allow_endpoint_names": ("example.com",)}


class Rounds:
    """The attributes of the sync loop that the component needs."""

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
        """The snapshots that resulted from the source's own snapshots."""
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
    """The addresses of each name, which a test changes."""
    found = []

    async def look_up(_resolver, _host, families):
        return Lookup({family: tuple(found) for family in families}, 300)

    monkeypatch.setattr(NodeResolver, "look_up", look_up)
    return found


async def test_allowed_names_are_resolved(answers):
    answers.append("203.0.113.1")
    async with Node(**ALLOWED) as node:
        await node.put()
        await until(lambda: node.ips() == ["203.0.113.1"])


async def test_without_permission_no_names_are_resolved(answers):
    answers.append("203.0.113.1")
    async with Node() as node:
        await node.put()
        for _ in range(5):
            await turn()
        assert node.states() == [NameState.NOT_ALLOWED]


async def test_names_are_resolved_in_a_cluster_only_if_pod_and_node_networks_are_known(answers):
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


async def test_a_name_resolving_into_the_service_network_is_forbidden(answers):
    answers.append("10.97.0.7")
    async with Node(service_cluster_ip_range=("10.96.0.0/12",), **ALLOWED) as node:
        await node.put()
        await until(lambda: node.states() == [NameState.FORBIDDEN])


async def test_names_in_the_saved_state_are_evaluated_at_startup():
    node = Node()
    node.store_names()
    node.rounds.publish(node.store.snapshot())
    async with node:
        assert node.states() == [NameState.NOT_ALLOWED]
        assert node.answered == []
        await node.put()
        assert len(node.answered) == 1
