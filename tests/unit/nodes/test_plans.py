"""Tests of the digests of Services in a fake API server."""

import asyncio
import contextlib

import pytest

from userspace_proxy.sources.base import pause
from userspace_proxy_kubectl.nodes.plans import Plans
from userspace_proxy_testing.fakes.agent_status import service_objects

SERVICES = service_objects(3)


@contextlib.asynccontextmanager
async def running(plans):
    task = asyncio.ensure_future(plans.run())
    try:
        await plans.ready.wait()
        yield plans
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def put(api):
    for item in SERVICES:
        api.put(item)


async def changed(plans, before):
    """Wait until the watch has delivered a change."""
    async with asyncio.timeout(30):
        while plans.summary[0] == before:
            await pause(0.01)


@pytest.mark.usefixtures("put")
async def test_each_service_has_a_digest_that_changes_with_its_endpoints(api, client):
    async with running(Plans(client, unix=lambda: 5.0)) as plans:
        before, digest = plans.digests, plans.summary[0]
        names = [f"team-{number}/service-{number}" for number in range(3)]
        assert sorted(before) == names
        assert plans.planned_at == 5.0
        api.put({**SERVICES[1], "endpoints": []})
        await changed(plans, digest)
        differing = {name for name in names if before[name] != plans.digests[name]}
        assert differing == {names[0]}


@pytest.mark.usefixtures("put")
async def test_a_previous_digest_is_recognized_only_for_the_requested_time(api, client):
    now = [100.0]
    async with running(Plans(client, clock=lambda: now[0])) as plans:
        digest = plans.summary[0]
        api.put({**SERVICES[1], "endpoints": []})
        await changed(plans, digest)
        now[0] += 3
        assert plans.had(plans.summary[0], 0.0)
        assert plans.had(digest, 3.0)
        assert not plans.had(digest, 2.9)
        assert not plans.had("another", 3.0)


@pytest.mark.usefixtures("put")
@pytest.mark.parametrize("right", ["list services", "list endpointslices"])
async def test_without_permission_to_list_there_are_no_digests(api, client, right):
    api.denied = {right}
    async with running(Plans(client)) as plans:
        assert (plans.digests, plans.planned_at) == (None, 0.0)


async def test_without_a_server_there_are_no_digests(api, client):
    await api.stop()
    async with running(Plans(client)) as plans:
        assert plans.digests is None


@pytest.mark.usefixtures("put")
async def test_an_unreadable_service_is_listed_as_unread(api, client):
    service = {"kind": "Service", "metadata": {"name": "bad", "namespace": "shop"}}
    api.put({**service, "spec": {"clusterIP": "10.96.9.9", "ports": [{"port": 99999}]}})
    async with running(Plans(client)) as plans:
        assert plans.unread == {"shop/bad"}
