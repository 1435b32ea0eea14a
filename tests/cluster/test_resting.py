"""A Deployment scales to zero and back at a real API server, as in docs/scale-to-zero.md."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from userspace_proxy.agent import scaling
from userspace_proxy.agent.rounds.tasks import pause
from userspace_proxy.scaling import holder_lease, node_lease
from userspace_proxy.scaling.cordons import ENDS_S

from .control_plane import ControlPlane
from .resting_shop import DEADLINE_S, NAMESPACE, Connection, Shop, open_shop, service
from .rights import grant_wake

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

IDLE_AFTER_S = 2.0
SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(scaling, "_LOOK_S", 0.1)
    monkeypatch.setattr(scaling, "_UNUSED_S", 0.1)
    monkeypatch.setattr(holder_lease, "_LOOK_S", 0.2)
    monkeypatch.setattr(holder_lease, "_NODES_S", 1.0)
    monkeypatch.setattr(holder_lease, "_RENEW_S", 1.0)
    monkeypatch.setattr(node_lease, "_FIGURES_S", 1.0)


@pytest.fixture(scope="module")
def granted(control_plane: ControlPlane) -> ControlPlane:
    """The documented roles, granted to the agents' user."""
    control_plane.grant_node_proxier()
    grant_wake(control_plane, NAMESPACE)
    return control_plane


@pytest.fixture
async def shop(granted: ControlPlane) -> AsyncIterator[Shop]:
    # The previous test's holder has stopped, but its Lease would expire only after a minute.
    granted.kubectl("delete", "leases", "--all", "--namespace=userspace-proxy")
    async with open_shop(granted, f"{IDLE_AFTER_S:g}s") as shop:
        yield shop


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await pause(0.05)


async def asleep(shop: Shop) -> bool:
    return await shop.replicas() == 0


async def stays(shop: Shop, replicas: int) -> None:
    """Check that the number of replicas doesn't change within four idle-after periods."""
    began = time.monotonic()

    async def is_over() -> bool:
        assert await shop.replicas() == replicas
        return time.monotonic() - began > 4 * IDLE_AFTER_S

    await until(is_over)


async def wake(shop: Shop) -> None:
    """Send a request from a client on one node, which must be served."""
    client = await shop.dial("node-1")
    assert await client.ask()
    await client.close()


def once_agreed(
    monkeypatch: pytest.MonkeyPatch, do: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[bool]]:
    """Call a function when all nodes first agree; return a function that tests whether it ran."""
    done: list[Any] = []
    ask = holder_lease.HolderLease._ask

    async def ask_and_do(holder: holder_lease.HolderLease, question: Any) -> bool:
        agreed = await ask(holder, question)
        if agreed and not done:
            await do()
            done.append(question)
        return agreed

    monkeypatch.setattr(holder_lease.HolderLease, "_ask", ask_and_do)

    async def is_done() -> bool:
        return bool(done)

    return is_done


async def test_an_idle_open_connection_prevents_scale_down(shop: Shop) -> None:
    assert await asleep(shop)
    client = await shop.dial("node-1")
    assert await client.ask(), "the workload was scaled from zero"
    await stays(shop, 1)
    assert await client.ask(), "the connection is still open"
    await client.close()
    await until(lambda: asleep(shop))
    assert (shop.controllers.starts, shop.controllers.ends) == (1, 1)
    again = await shop.dial("node-2")
    assert await again.ask(), "the next client wakes the workload"
    await again.close()


async def test_pods_are_kept_for_a_second_service_that_selects_them_but_not_for_a_copied_annotation(
    shop: Shop,
) -> None:
    """The workload's selector at the API server decides (issue 52)."""
    other: dict[str, Any] = {
        "metadata": {"name": "other"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    }
    await shop.put(SERVICES, other)
    await wake(shop)
    await stays(shop, 1)
    why = "deployment/web stays at one replica: Service shop/other leads to the same pods"

    async def is_said() -> bool:
        return any(event.startswith(why) for event in await shop.events("StaysAwake"))

    await until(is_said)
    await shop.delete(f"{SERVICES}/other")
    other["metadata"]["annotations"] = service(f"{IDLE_AFTER_S:g}s")["metadata"]["annotations"]
    other["spec"]["selector"] = {"app": "other"}
    await shop.put(SERVICES, other)
    await until(lambda: asleep(shop))
    await shop.delete(f"{SERVICES}/other")


async def test_a_client_that_dials_during_a_scale_down_gets_the_next_pod(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[Connection] = []

    async def dial() -> None:
        clients.append(await shop.dial("node-1"))

    has_dialled = once_agreed(monkeypatch, dial)
    await wake(shop)
    shop.controllers.lag_s = 0.5
    await until(has_dialled)
    async with asyncio.timeout(ENDS_S):
        assert await clients[0].ask()
    assert (shop.controllers.starts, shop.controllers.ends) == (2, 1)
    await clients[0].close()
