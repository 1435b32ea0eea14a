"""Which workers have a client, and what they know of the endpoints where it has dialled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model.serving import Serving

from ..streams import Stream
from .clients import Client
from .files import WORKER, Port
from .machine import Process

if TYPE_CHECKING:
    from .world import World


def is_draining(process: Process) -> bool:
    """Return whether a worker was told to drain, or to end."""
    main = process.main
    return main is not None and (main._is_draining or main.ended.done())


def is_taken(client: Client) -> bool:
    """Return whether a worker has accepted a client."""
    processes = client.world.machine.processes
    return any(client.stream in process.kernel.taken for process in processes)


def group_of(worker: Process, port: Port) -> EndpointGroup:
    """Return the group for which a worker takes clients of a port.

    It may have several at one address, those for which it stands in, too; and if the address moves
    to another group, it learns so of one after the other, and takes clients meanwhile.
    """
    listeners: Iterable[Any] = worker.main._worker._listeners.values()
    group: EndpointGroup = next(x.group for x in listeners if x.sock.core.shared is port)
    return group


def may_reset(world: World, worker: Process, client: Client) -> bool:
    """Return whether a worker has drained, or serves as an earlier control process had it."""
    if is_draining(worker) and world.draining.may_reset(worker):
        return True
    control = world.control
    if control is not None and worker.parent is control.process:
        return False
    servings, since = _servings(worker, client.stream), client.dialled_at
    if client.group is not None:
        # Its listener may have been closed, or serve another group.
        servings = [client.group.serving]
    are_quiet = (world.breaks.all_were_quiet(worker, since, each) for each in servings)
    return bool(servings) and all(are_quiet)


def is_held_by_former(world: World, client: Client) -> bool:
    """Return whether a worker has it that learns of no other endpoints any more."""
    return any(
        client.stream in process.kernel.taken
        and (is_draining(process) or may_reset(world, process, client))
        for process in world.machine.alive(WORKER)
    )


def _servings(worker: Process, client: Stream) -> list[Serving]:
    """Return how a worker serves where a client has dialled; mostly it is one, or none."""
    running = worker.main._worker
    listeners = () if running is None else running._listeners.values()
    return [each.group.serving for each in listeners if each.sock.core.local == client.remote]
