"""Resources that a node lacks for a while: ports that other programs have, descriptors, memory."""

from __future__ import annotations

from socket import IPPROTO_TCP
from typing import TYPE_CHECKING

from userspace_proxy.kernel.port_holders import HeldPort
from userspace_proxy.model import IPFamily, Protocol

from ..machine.conntrack_entries import SEEN_REPLY

if TYPE_CHECKING:
    from .world import World

FILTER = "filter"
"""The call that sets a socket's source ranges."""
# Sockets that couldn't be opened are retried each second.
_AGAIN_S = 1.6
_ANY = "0.0.0.0"


class Lacks:
    """Causes the shortages of one run."""

    def __init__(self, world: World) -> None:
        self._world = world

    def crowd(self) -> None:
        """Let other programs have the first proxy ports from now on."""
        world, first = self._world, self._world.plan.proxy_ports[0]
        for number in range(first, first + world.plan.crowd):
            for is_tcp in (True, False):
                world.machine.others[(_ANY, number), is_tcp] = None
        if world.plan.crowd:
            world.freshness.disturb(world.timeline.now + _AGAIN_S)

    def take(self, number: int, is_tcp: bool, seconds: float) -> None:
        """Let another program listen on a free port, unless an unanswered SYN is sent to it."""
        world = self._world
        if is_tcp and number in self._waited():
            return
        if world.machine.take_port((_ANY, number), is_tcp=is_tcp, for_s=seconds):
            world.note(f"another program has port {number} for {seconds:g} s")
            world.freshness.disturb(world.timeline.now + seconds + _AGAIN_S)

    def take_range(self, seconds: float) -> None:
        """Let other programs take all free proxy ports."""
        world, waited = self._world, self._waited()
        first, last = world.plan.proxy_ports
        for number in range(first, last + 1):
            is_free = not any(port.port == number for port in world.machine.ports)
            for is_tcp in (True, False) if is_free else ():
                if is_tcp and number in waited:
                    continue
                world.machine.take_port((_ANY, number), is_tcp=is_tcp, for_s=seconds)
        world.freshness.disturb(world.timeline.now + seconds + _AGAIN_S)

    def _waited(self) -> set[int]:
        """Return the ports to which unanswered SYNs are sent, which no other program may take.

        The proxy removes the entry of such a SYN only once it uses the port again, because listing
        entries takes 10 ms.
        """
        entries = self._world.kernel.tables.conntrack.entries.values()
        syns = (e for e in entries if e.flow.protocol == IPPROTO_TCP and not e.status & SEEN_REPLY)
        return {entry.leads_to.port for entry in syns}

    def run_short(self, call: str, number: int, spared: int, seconds: float) -> None:
        """Make a kind of system call of a serving agent fail for a while."""
        world, agent = self._world, self._world.agent
        if agent is None or agent.is_ending or not agent.has_served:
            return
        world.machine.run_short(agent.process, call, number, spared, seconds)
        world.freshness.disturb(world.timeline.now + seconds + _AGAIN_S)

    def held_ports(self, protocol: Protocol) -> list[HeldPort]:
        """Return the ports that other programs have; replaces kernel.port_holders."""
        return [
            HeldPort(port, port, frozenset(IPFamily))
            for (_, port), is_tcp in self._world.machine.others
            if is_tcp is (protocol is Protocol.TCP)
        ]
