"""What a node lacks for a while: ports that another program has, descriptors, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.kernel.port_holders import HeldPort
from userspace_proxy.model import IPFamily, Protocol

if TYPE_CHECKING:
    from .world import World

FILTER = "filter"
"""The call with which a socket gets its source ranges."""
# What couldn't be opened is tried again each second.
_AGAIN_S = 1.6
_ANY = "0.0.0.0"


class Lacks:
    """What is lacking in one run."""

    def __init__(self, world: World) -> None:
        self._world = world

    def crowd(self) -> None:
        """Have other programs the first proxy ports from now on."""
        world, first = self._world, self._world.plan.proxy_ports[0]
        for number in range(first, first + world.plan.crowd):
            for is_tcp in (True, False):
                world.machine.others[(_ANY, number), is_tcp] = None
        if world.plan.crowd:
            world.freshness.disturb(world.timeline.now + _AGAIN_S)

    def take(self, number: int, is_tcp: bool, seconds: float) -> None:
        """Have another program wait for clients at a port, if it is free."""
        world = self._world
        if world.machine.take_port((_ANY, number), is_tcp=is_tcp, for_s=seconds):
            world.note(f"another program has port {number} for {seconds:g} s")
            world.freshness.disturb(world.timeline.now + seconds + _AGAIN_S)

    def take_range(self, seconds: float) -> None:
        """Have other programs get all proxy ports that are free."""
        world = self._world
        first, last = world.plan.proxy_ports
        for number in range(first, last + 1):
            is_free = not any(port.port == number for port in world.machine.ports)
            for is_tcp in (True, False) if is_free else ():
                world.machine.take_port((_ANY, number), is_tcp=is_tcp, for_s=seconds)
        world.freshness.disturb(world.timeline.now + seconds + _AGAIN_S)

    def run_short(self, call: str, number: int, spared: int, seconds: float) -> None:
        """Have a kind of calls of an agent that serves fail."""
        world, agent = self._world, self._world.agent
        if agent is None or agent.is_ending or not agent.has_served:
            return
        world.machine.run_short(agent.process, call, number, spared, seconds)
        world.freshness.disturb(world.timeline.now + seconds + _AGAIN_S)

    def held_ports(self, protocol: Protocol) -> list[HeldPort]:
        """Part of kernel.port_holders: those of other programs."""
        return [
            HeldPort(port, port, frozenset(IPFamily))
            for (_, port), is_tcp in self._world.machine.others
            if is_tcp is (protocol is Protocol.TCP)
        ]
