"""The simulated API server behaves like the fake server and the real server, in virtual time."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from tests.unit.sources.kubernetes.contract import NODE_NAME, SourceContract
from tests.unit.sources.kubernetes.history_contract import HistoryCluster, HistoryContract
from userspace_proxy.sources.kubernetes import KubernetesSource

from ..machine.machine import Machine, Speed
from ..timeline import Timeline
from .api import ApiServer
from .api_client import Address
from .api_etcd import Etcd
from .machine import AgentProcess

_DEADLINE_S = 600.0


class SimulatedCluster(HistoryCluster):
    """A simulated server, and the process of a test."""

    def __init__(self, **settings: Any) -> None:
        self.timeline = Timeline()
        rng = Random(1)
        self.etcd = Etcd()
        self.server = ApiServer(self.etcd, self.timeline, rng)
        for name, value in settings.items():
            setattr(self.server, name, value)
        self.address = Address([self.server], rng)
        self.machine = Machine(self.timeline, rng, Speed())
        self.process = AgentProcess(self.machine, "test")

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test's coroutine to its end, in virtual time."""

        async def main() -> int:
            await test
            return 0

        with self._installed():
            self.process.start(main)
            self.timeline.run_until(self.timeline.now + _DEADLINE_S)
        assert self.machine.violations == []
        assert self.process.task.result() == 0

    @contextmanager
    def _installed(self) -> Iterator[None]:
        names = self.address.names(lambda: self.address.client_for(self.process.loop, NODE_NAME))
        before = [(module, name, getattr(module, name)) for module, name, _ in names]
        for module, name, value in names:
            setattr(module, name, value)
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)

    async def put(self, item: dict[str, Any]) -> None:
        self.etcd.put(item)

    async def delete(self, kind: str, name: str) -> None:
        self.etcd.delete(kind, name)

    async def stop(self) -> None:
        self.server.stop()

    async def start(self) -> None:
        self.server.start()

    def source(self, **options: Any) -> KubernetesSource:
        return KubernetesSource(
            master="http://api.example:6443",
            node_name=NODE_NAME,
            rng=Random(2),
            clock=self.timeline.clock,
            **options,
        )

    async def client(self) -> Any:
        client = self.address.client_for(self.process.loop, NODE_NAME)
        await client.open()
        return client


SETTINGS = {
    "plain": {},
    "in-pieces": {"piece_max": 7},
    "in-pages": {"has_watch_cache": False, "page_max": 1, "has_nulls": True},
    "slow": {"slow_s": 0.5},
}


def _tests(contract: type) -> list[Any]:
    return [getattr(contract(), name) for name in dir(contract) if name.startswith("test_")]


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("test", _tests(SourceContract), ids=lambda test: test.__name__[5:])
def test_a_simulated_server_meets_the_source_contract(test: Any, settings: dict[str, Any]) -> None:
    cluster = SimulatedCluster(**settings)
    cluster.run(test(cluster))


@pytest.mark.parametrize("test", _tests(HistoryContract), ids=lambda test: test.__name__[5:])
def test_a_simulated_server_meets_the_history_contract(test: Any) -> None:
    cluster = SimulatedCluster()
    cluster.run(test(cluster))
