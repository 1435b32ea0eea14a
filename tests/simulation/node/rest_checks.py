"""What must hold once nothing fails any more: all is as the newest objects say; at the end, nothing
is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..control.files import WORKER
from ..control.machine import Process
from .clients import DIALS, ENDED, SERVED, Client
from .families import like
from .hand_overs import labels_of
from .plan import NODE_IP, NODE_PORTS

if TYPE_CHECKING:
    from .world import World

AT_REST, CALM, LEFT, NUMBERS, HELD = (
    "table at rest",
    "clients at rest",
    "nothing left",
    "proxy ports at rest",
    "sockets of workers at rest",
)
ORACLES = (AT_REST, CALM, LEFT, NUMBERS, HELD)

_OUTSIDE, _FAR = "10.3.0.1", "10.3.9.2"


def check_rest(world: World) -> None:
    """Check that table and ports are as the newest objects say."""
    if world.machine.violations:
        return
    truth, check = world.cluster.last, world.judgements.check
    found = world.table.targets
    have = {(f.ip, f.port, str(f.protocol)): target for f, target in found.items()}
    for at in sorted(have.keys() | truth.frontends.keys()):
        is_wanted = at in truth.frontends
        what = f"{at} is {'steered' if at in have else 'not steered'}"
        check(AT_REST, (at in have) is is_wanted, what)
        may = [truth.expected(ip, at) for ip in (at[0], *_clients(at[0]))]
        is_refused = not isinstance(have.get(at), int)
        if not any(each.endpoints for each in may) and all(e.may_be_refused for e in may):
            what = f"{at} is led to a port, and no client may be served"
            check(AT_REST, is_refused, what)
        else:
            what = f"{at} refuses, and clients may be served"
            check(AT_REST, not is_refused, what)
    numbers = {port.port for port in world.machine.ports if port.port in NODE_PORTS}
    wanted = {at[1] for at in truth.frontends if at[1] in NODE_PORTS}
    wanted |= {*truth.open_health_ports}
    what = f"node ports {sorted(numbers)} are reserved, wanted are {sorted(wanted)}"
    check(AT_REST, numbers == wanted, what)
    agent = world.agent
    is_there = agent is not None and agent.core is not None
    check(AT_REST, is_there, "no agent runs")
    if agent is not None and agent.core is not None:
        pool = agent.core.served_ports.pool
        # Those of an earlier agent's workers are spared until the round after these have drained.
        has_drained = agent.core.predecessors is None
        free = {*(pool.candidates() if has_drained else pool.free)}
        _check_numbers(world, free, agent.core.served_ports)
        if has_drained:
            _check_held(world, agent.process, agent.core.served_ports)


def _check_numbers(world: World, free: set[int], served_ports: Any) -> None:
    """Check that each number of the range is either in use or offered to the next Service."""
    first, last = world.plan.proxy_ports
    every = {*range(first, last + 1)}
    used = {port.port for port in world.machine.ports} & every
    # While UDP is refused, what holds its port may have lacked memory.
    listeners = (each for served in served_ports for each in served.listeners.values())
    kept = {each.address.port for each in listeners if not each.is_serving}
    lost, twice = sorted(every - used - kept - free), sorted(used & free)
    what = f"proxy ports {lost} are neither used nor free, and {twice} are both"
    world.judgements.check(NUMBERS, not lost and not twice, what)


def _check_held(world: World, agent: Process, served_ports: Any) -> None:
    """Check that each worker has one socket of each listener, and each socket one worker."""
    first, last = world.plan.proxy_ports
    check, workers = world.judgements.check, world.machine.alive(WORKER)
    for port in world.machine.ports:
        takes_clients = port.is_listening if port.is_tcp else not port.is_deaf
        if takes_clients and first <= port.port <= last:
            names = [p.name for p in port.holders if p.kind == WORKER]
            check(HELD, len(names) == 1, f"a socket of port {port.port} is that of {names}")
    listeners = {each for served in served_ports for each in served.listeners.values()}
    wanted = sorted((each.address.port, each.address.ip) for each in listeners if each.is_serving)
    # One that can't be started yet is tried again.
    for worker in workers if len(workers) == world.plan.workers else ():
        found = sorted((port.port, port.local[0]) for port in labels_of(worker) if port.local)
        what = f"{worker.name} has the ports {found}, not {wanted}"
        check(HELD, worker.parent is agent and found == wanted, what)


def check_clients(world: World, clients: Sequence[Client]) -> None:
    """Check what clients have got that came at rest, and had time for it."""
    if world.machine.violations:
        return
    truth = world.cluster.last
    for client in clients:
        expected = truth.expected(client.ip, client.at)
        # Which endpoint has served it was judged then.
        is_right = client.state in (SERVED, ENDED) or not expected.endpoints
        if client.state == DIALS and client.at[2] == "TCP":
            is_right = expected.may_be_dropped
        what = f"{client.name} at {at_of(client)}: {client.state}, may {expected}"
        world.judgements.check(CALM, is_right, what)


def check_end(world: World) -> None:
    """Check that nothing is left."""
    if world.machine.violations:
        return
    check = world.judgements.check
    for process in world.machine.processes:
        check(LEFT, process.is_dead, f"{process.name} runs at the end")
    ports = sorted(port.port for port in world.machine.ports)
    check(LEFT, not ports, f"ports {ports} are open at the end")
    steered = sorted(map(str, world.table.targets))
    check(LEFT, not steered, f"{steered} are steered at the end")
    files = world.disk.open_descriptors
    check(LEFT, not files, f"files are open at the end: {files}")


def _clients(ip: str) -> Iterator[str]:
    """Yield the node and clients from outside, of the family of an address.

    Source ranges may admit the node, which is served by endpoints elsewhere, too.
    """
    yield from (like(each, ip) for each in (NODE_IP, _OUTSIDE, _FAR))


def at_of(client: Client) -> str:
    """Return what a client has dialled, as text."""
    return "{}:{}/{}".format(*client.at)
