"""Clients that wait for an endpoint of a Service."""

from __future__ import annotations

from typing import Any

from userspace_proxy.model import Handling, Hold

from .peers import Peer, TcpEndpoint
from .rig import Rig, Service
from .waiting import until

HOLD: dict[str, Any] = {"handling": Handling(hold=Hold(60))}


async def waiting(rig: Rig, service: Service, count: int) -> list[Peer]:
    """Return clients that have connected, and wait for an endpoint."""
    clients = []
    for number in range(count):
        clients.append(await rig.client(service))
        await until(lambda n=number: waited(service) == n + 1)
    return clients


def waited(service: Service) -> int:
    return service.group.counters.waits.total


def count_waiting(service: Service) -> int:
    return len(service.group.waiting_room or ())


def limited(number: int, **others: Any) -> dict[str, Any]:
    return {"handling": Handling(max_connections=number, **others)}


async def at_its_limit(rig: Rig) -> tuple[TcpEndpoint, Service, Peer]:
    """Return an endpoint, its Service (limit: one connection), and the connection's end there."""
    pod = rig.endpoint()
    web = rig.service(pod.address, **limited(1))
    _, server = await rig.pair(web, pod)
    return pod, web, server
