"""Scaling in an agent: its conditions, reported failures and the shown demand."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import time

import pytest

from userspace_proxy.agent import scaling
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.agent.rounds.tasks import Supervisor
from userspace_proxy.agent.scaling import Scaling
from userspace_proxy.facts import StatusFacts
from userspace_proxy.model import Handling, Hold
from userspace_proxy.scaling.lease_notes import HOLDER
from userspace_proxy.sources import MemorySource
from userspace_proxy.state_file import StateFileError, file_of_proxy
from userspace_proxy_testing.fakes.steering import FakeSteering

from ..scaling.resting_nodes import ASLEEP_WHEN_IDLE, POD, WEB
from ..sources.shared_leases import LeaseStore
from .samples import Cluster
from .test_core import make_core
from .watched import until


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    for name in ("_LOOK_S", "_UNUSED_S", "_RETRY_S"):
        monkeypatch.setattr(scaling, name, 0.01)


class PreviousWorkers(list):
    """Workers of the previous process."""


class Shared(MemorySource):
    """A source whose proxies share Leases."""

    def __init__(self, store):
        super().__init__()
        self.store = store

    def leases(self, node_name, prefix):
        assert (node_name, prefix) == ("node-1", "canary")
        return self.store.at(node_name)


@pytest.fixture
async def proxy(plane):
    """A proxy whose Service has a pod."""
    async with contextlib.AsyncExitStack() as stack:
        options = Options(
            node_name="node-1", proxy_name="canary", allow_wake=True, previous_drain_s=30.0
        )
        core = make_core(plane, FakeSteering(), options)
        stack.callback(core.served_ports.close)
        supervisor = Supervisor()
        stack.push_async_callback(supervisor.stop)

        class Running:
            store = LeaseStore("node-1")
            now = 100.0

            async def serve(self, handling=ASLEEP_WHEN_IDLE):
                snapshot = Cluster().serve(
                    "web", "10.96.0.1", POD, handling=handling, proxy_name="canary"
                )
                core.sync.publish(snapshot)
                await core.sync._round()

            async def start(self, previous_workers=None, **changes):
                core.previous_workers = previous_workers
                core.source = Shared(self.store)
                core.options = dataclasses.replace(core.options, **changes)
                self.component = Scaling(core, clock=lambda: self.now)
                await self.component.start(supervisor)

            def cordon(self, until=float("inf")):
                """Make new clients wait for a vote until this monotonic time, in seconds."""
                self.component._resting._cordons.cordon(WEB, "7", until)

            @property
            def endpoints(self):
                """The addresses of the endpoints that accept clients."""
                (served,) = core.served_ports.of_service(WEB)
                return [endpoint.ip for endpoint in served.group.serving.endpoints]

            @property
            def shown(self):
                facts = StatusFacts()
                self.component.show(facts)
                return facts.cluster_demand

        yield Running()


async def test_an_agent_reports_demand_holds_the_lease_and_shows_the_sums(proxy):
    await proxy.serve()
    await proxy.start()
    assert proxy.shown is None
    await until(lambda: proxy.shown == {WEB: 1})
    assert proxy.store.leases[HOLDER].holder.startswith("node-1_")


async def test_without_a_scalable_service_no_lease_or_report_is_written(proxy):
    await proxy.serve(Handling(hold=Hold(60.0)))
    await proxy.start()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 0.05)
    assert proxy.store.writes == []
    await proxy.serve()
    await until(lambda: HOLDER in proxy.store.leases)


async def test_the_demand_sum_is_hidden_once_no_service_names_a_workload(proxy):
    await proxy.serve()
    await proxy.start()
    await until(lambda: proxy.shown == {WEB: 1})
    await proxy.serve(Handling(hold=Hold(60.0)))
    assert proxy.shown is None
    await proxy.serve()
    assert proxy.shown == {WEB: 1}


async def test_a_failed_step_of_scaling_is_retried_soon(proxy, monkeypatch, caplog):
    monkeypatch.setattr(scaling, "_RETRY_S", 3600.0)
    caplog.set_level(logging.INFO)
    await proxy.serve()
    proxy.store.failure = "the server is down"
    await proxy.start()
    await until(lambda: "the server is down" in caplog.text)
    proxy.store.failure = ""
    await until(lambda: "workloads can be scaled to zero again" in caplog.text)


async def test_connections_of_previous_workers_are_unknown_until_drained(proxy):
    old = PreviousWorkers(["worker"])
    await proxy.serve()
    await proxy.start(old)
    assert not proxy.component._resting.is_known()
    old.clear()
    assert not proxy.component._resting.is_known()
    proxy.now += 29
    assert not proxy.component._resting.is_known()
    proxy.now += 1
    assert proxy.component._resting.is_known()


async def test_without_previous_workers_all_connections_are_known(proxy):
    await proxy.start(PreviousWorkers())
    assert proxy.component._resting.is_known()


async def test_no_lease_is_held_without_permission_to_scale(proxy):
    await proxy.serve()
    await proxy.start(allow_wake=False)
    assert proxy.component._resting is None
    facts = StatusFacts()
    proxy.component.show(facts)
    assert (facts.demand, facts.cluster_demand) == ({WEB: 1}, None)


async def test_an_acknowledgement_expires_even_if_its_service_names_no_workload(proxy):
    await proxy.serve()
    await proxy.start()
    await until(lambda: HOLDER in proxy.store.leases)
    proxy.cordon()
    assert proxy.endpoints == []
    await proxy.serve(Handling(hold=Hold(60.0)))
    proxy.cordon(0.0)
    await until(lambda: proxy.endpoints == [POD])


async def test_an_acknowledgement_expires_even_if_the_api_server_is_down(
    proxy, monkeypatch, caplog
):
    monkeypatch.setattr(scaling, "_RETRY_S", 3600.0)
    await proxy.serve()
    await proxy.start()
    await until(lambda: HOLDER in proxy.store.leases)
    proxy.cordon()
    proxy.store.failure = "the server is down"
    # The next report is due now.
    proxy.component._resting._node._written = None
    await until(lambda: "the server is down" in caplog.text)
    proxy.cordon(0.0)
    await until(lambda: proxy.endpoints == [POD])


async def test_saved_acknowledgements_apply_before_any_service_is_served(proxy, tmp_path):
    data = json.dumps({"round": "7", "endpoints": {str(WEB): [(POD, 8080)]}}).encode()
    file = file_of_proxy(str(tmp_path), "cordons.json", "canary")
    file.write(data, current_at=time.time())
    await proxy.start(state_dir=str(tmp_path))
    await proxy.serve()
    assert proxy.endpoints == []


async def test_an_acknowledgement_that_cannot_be_saved_is_logged(proxy, caplog):
    caplog.set_level(logging.INFO)

    async def look():
        raise StateFileError("cannot write cordons.json: No space left on device")

    await proxy.serve()
    await proxy.start()
    proxy.component._resting._holder.look = look
    await until(lambda: "not scaled to zero: cannot write cordons.json" in caplog.text)
    reports = len(proxy.store.writes)
    proxy.component._resting._node._written = None
    await until(lambda: len(proxy.store.writes) > reports)
    assert "can be scaled to zero again" not in caplog.text
