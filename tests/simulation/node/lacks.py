"""What a node lacks for a while: ports that another program has, descriptors, memory, buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from userspace_proxy.kernel.port_holders import HeldPort
from userspace_proxy.model import IPFamily, Protocol

from .plan import NODE_PORTS

if TYPE_CHECKING:
    from .clients import Client
    from .world import World

NOT_CAPTURED, QUEUES = "clients of other programs", "queues of listeners"

_HOLDING = ("socket", "bind")
"""The calls with which an agent holds a node port."""
FILTER = "filter"
"""The call with which a socket gets its source ranges."""
# What couldn't be opened is tried again each second.
_AGAIN_S = 1.6
# Until an agent has tried to open all listeners once.
_STARTS_S = 0.3
_ANY = "0.0.0.0"
_TAKEN = "another program had the port"


class Lacks:
    """What is lacking in one run, and which clients may see it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken: dict[int, float] = {}
        """By port: until when clients may see that another program had it."""
        self._apart: set[int] = set()
        """Node ports that no rule led to the proxy when another program got them."""
        self._unbound: set[int] = set()
        """Those of them that an agent may have had before, without a socket."""
        self._unbound_until = float("-inf")
        """Until when an agent may have node ports without a socket."""
        self._short_until = float("-inf")
        self._range_until = float("-inf")
        """Until when clients may see that no proxy port was free."""

    def crowd(self, until: float) -> None:
        """Have other programs the first proxy ports from now on.

        Args:
            until: What gets no port until then waits for the tries of the next second.
        """
        world, first = self._world, self._world.plan.proxy_ports[0]
        for number in range(first, first + world.plan.crowd):
            for is_tcp in (True, False):
                world.machine.others[(_ANY, number), is_tcp] = None
        if world.plan.crowd:
            self._range_until = max(self._range_until, until + _AGAIN_S)

    def agent_starts(self) -> None:
        """Note that an agent is about to try proxy ports: those that it finds taken come first."""
        if self._world.plan.crowd:
            until = self._world.timeline.now + _STARTS_S + _AGAIN_S
            self._range_until = max(self._range_until, until)

    def take(self, number: int, is_tcp: bool, seconds: float) -> None:
        """Have another program wait for clients at a port, if it is free."""
        world = self._world
        if not world.machine.take_port((_ANY, number), is_tcp=is_tcp, for_s=seconds):
            return
        world.note(f"another program has port {number} for {seconds:g} s")
        until = self._taken[number] = world.timeline.now + seconds + _AGAIN_S
        self._note_lost(number)
        # Of a node port only its own clients may notice it.
        if number not in NODE_PORTS:
            world.freshness.disturb(until)
        # What rules lead to the proxy as it comes stays the proxy's.
        is_led = any(frontend.port == number for frontend in world.table.targets)
        self._unbound.discard(number)
        if is_led or number not in NODE_PORTS:
            self._apart.discard(number)
        else:
            self._apart.add(number)
            if world.timeline.now <= self._unbound_until and self._is_known(number):
                self._unbound.add(number)

    def _is_known(self, number: int) -> bool:
        """Return whether an agent may know a Service with this node port."""
        world = self._world
        states = world.cluster.between(world.freshness.floor(), world.timeline.now)
        return any(port == number for truth in states for _, port, _ in truth.frontends)

    def _note_lost(self, number: int) -> None:
        """Note that an agent that hasn't served yet can't recover a port."""
        hand_overs = self._world.checks.hand_overs
        if not hand_overs.has_served(self._world.agent):
            hand_overs.lost[number] = _TAKEN

    def take_range(self, seconds: float) -> None:
        """Have other programs get all proxy ports that are free."""
        world, until = self._world, self._world.timeline.now + seconds + _AGAIN_S
        first, last = world.plan.proxy_ports
        for number in range(first, last + 1):
            is_free = not any(port.port == number for port in world.machine.ports)
            for is_tcp in (True, False) if is_free else ():
                if world.machine.take_port((_ANY, number), is_tcp=is_tcp, for_s=seconds):
                    self._taken[number] = max(until, self._taken.get(number, until))
                    self._note_lost(number)
        self._range_until = until
        world.freshness.disturb(until)

    def queued(self, waiting: int, has_room: bool) -> None:
        """Judge whether a client waits in a listener's queue, or has to dial again.

        Args:
            waiting: How many do already.
        """
        most = self._world.machine.queue
        what = f"{waiting} clients fill a queue, and the node lets {most} wait"
        self._world.judgements.check(QUEUES, has_room or waiting > most, what)

    def check(self) -> None:
        """Check that clients of another program's node port aren't led to the proxy."""
        world = self._world
        for (_, number), is_tcp in world.machine.others:
            if number not in self._apart:
                continue
            protocol = "TCP" if is_tcp else "UDP"
            led = [
                str(frontend)
                for frontend in world.table.targets
                if (frontend.port, str(frontend.protocol)) == (number, protocol)
            ]
            if led and number in self._unbound:
                # It had the port before its rules were in force.
                world.judgements.excuse(NOT_CAPTURED, "the agent had no socket to hold the port")
                continue
            what = f"{led} are steered, and another program has the port"
            world.judgements.check(NOT_CAPTURED, not led, what)

    def run_short(self, call: str, number: int, spared: int, seconds: float) -> None:
        """Have a kind of calls of an agent that serves fail."""
        world, agent = self._world, self._world.agent
        if agent is None or agent.is_ending or not world.checks.hand_overs.has_served(agent):
            return
        world.machine.run_short(agent.process, call, number, spared, seconds)
        self._short_until = world.timeline.now + seconds + _AGAIN_S
        if call in _HOLDING:
            self._unbound_until = max(self._unbound_until, self._short_until)
        # A listener whose filter the kernel doesn't take refuses: no client is served by an older
        # one.
        if call != FILTER:
            world.freshness.disturb(self._short_until)

    def why(self, client: Client) -> str:
        """Return why a client isn't served; empty: it has to be."""
        if client.dialled_at <= self._short_until:
            return "the agent ran short"
        target = self._world.checks.target_of(client.at)
        ports = (client.at[1], target if isinstance(target, int) else 0)
        if any(client.dialled_at <= self._taken.get(port, -1.0) for port in ports):
            return _TAKEN
        if client.dialled_at <= self._range_until and not isinstance(target, int):
            return "no proxy port was free"
        return ""

    def is_taken(self, port: int) -> bool:
        """Return whether clients may see that another program has, or had, a port."""
        return self._world.timeline.now <= self._taken.get(port, -1.0)

    def why_closed(self, port: int) -> str:
        """Return why frontends may lead to a port that is closed."""
        now = self._world.timeline.now
        if now <= self._short_until:
            return "the agent ran short"
        return _TAKEN if self.is_taken(port) else ""

    def held_ports(self, protocol: Protocol) -> list[HeldPort]:
        """Part of kernel.port_holders: those of other programs."""
        return [
            HeldPort(port, port, frozenset(IPFamily))
            for (_, port), is_tcp in self._world.machine.others
            if is_tcp is (protocol is Protocol.TCP)
        ]
