"""Maintains the served Service ports, whose listeners follow the plan.

Rule 1: a listener that can't be opened is a problem only of its Service port: the failure is
logged, opening is retried, and the frontend refuses clients.
Rule 2: no method awaits: a change is one step of the event loop, so traffic sees either the old or
the new state.
Rule 3: a Service port that takes over a frontend also takes over its listener with the queued
clients, so no client is refused while a policy or the owner of an address changes.
Rule 4: the cost of a round depends on the changed Service ports, not on their total number.
Rule 5: Service ports that lack a common resource take turns, in the order of ``listener_shares``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from ...clocks import Clocks
from ...errors import ListenError
from ...model import DataPath, Frontend, IPFamily, PortKey, Protocol, ServiceKey, SocketAddress
from ...model.cordoned import Cordoned
from ...plan import PortPlan
from ...plan.detours import At, Detours, Reasons
from ...plane import Group, Plane, PortPool
from ...shares import remove_from
from ...steering import Bind
from .auto_paths import AutoPaths
from .kernel_turns import KernelTurns
from .listen_addresses import HELD_HINT, ListenAddresses, ListenerIndex
from .node_ports import NodePortReservations, node_ports
from .served_port import NOT_HELD, ServedPort, Steered
from .shortages import ListenProblems, Shortages


class ServedPorts:
    """The Service ports that one proxy serves.

    Args:
        transparent: Whether the steering requires transparent sockets.
        second_port: See ``Options``.
    """

    def __init__(
        self,
        plane: Plane,
        bind: Bind,
        pool: PortPool,
        *,
        transparent: bool = False,
        second_port: Callable[[Frontend], int] | None = None,
        clock: Callable[[], float] = Clocks.monotonic,
    ) -> None:
        self.pool = pool
        self._plane = plane
        self._bind = bind
        self._clock = clock
        self._reservations = NodePortReservations()
        self._addresses = ListenAddresses(
            bind,
            pool,
            transparent=transparent,
            holder=self._holder_of,
            second_port=second_port,
        )
        self.listeners = ListenerIndex()
        self._served: dict[PortKey, ServedPort] = {}
        self._by_group: dict[Group, ServedPort] = {}
        self._by_service: dict[ServiceKey, dict[PortKey, ServedPort]] = {}
        self._retired: list[ServedPort] = []
        self._giving_up: set[ServedPort] = set()
        """The ports that give up their listeners to other ports, once nothing is steered to these
        listeners."""
        self.shortages = Shortages()
        """The ports waiting for a listener."""
        self._problems = ListenProblems(self.shortages, clock)
        self.steered = Steered(self._served, self._problems.end)
        """The targets of the ports' frontends in the rules."""
        self.detours = Detours()
        self.cordoned = Cordoned()
        self._holding: dict[ServedPort, None] = {}
        self._of_udp: dict[ServedPort, None] = {}
        self.auto_paths = AutoPaths()
        self._kernel_turns = KernelTurns()

    def __iter__(self) -> Iterator[ServedPort]:
        return iter(self._served.values())

    def of_port(self, key: PortKey) -> ServedPort | None:
        return self._served.get(key)

    def of_group(self, group: Group) -> ServedPort | None:
        return self._by_group.get(group)

    def of_service(self, service: ServiceKey) -> Collection[ServedPort]:
        """Return a Service's served ports; empty if it has none."""
        return tuple(self._by_service.get(service, {}).values())

    @property
    def of_udp(self) -> Collection[ServedPort]:
        return self._of_udp.keys()

    @property
    def holding(self) -> Collection[ServedPort]:
        """The ports whose clients may wait while no endpoint is usable."""
        return self._holding.keys()

    def open(self, plan: PortPlan, preferred: Mapping[Frontend, int]) -> None:
        """Begin to serve a Service port.

        Args:
            preferred: Proxy ports to which rules of an earlier run point, by frontend; 0 for a port
                that may have belonged to another Service.
        """
        # The port may already be open, if a bug has interrupted a round that is now repeated.
        self.retire(plan.key)
        served = ServedPort(plan, self._plane.open_group(plan.key))
        self._served[plan.key] = self._by_group[served.group] = served
        self._by_service.setdefault(plan.key.name.service, {})[plan.key] = served
        self._reservations.claim(node_ports(f for f in plan.frontends if f in preferred))
        self._follow(served, (), preferred)

    def update(self, plan: PortPlan) -> None:
        """Apply a change of a served Service port."""
        served = self._served[plan.key]
        before, served.plan = served.plan.frontends, plan
        self._follow(served, before, {})

    def _follow(
        self, served: ServedPort, before: Iterable[Frontend], preferred: Mapping[Frontend, int]
    ) -> None:
        """Apply a Service port's plan to its rules, path and listeners."""
        self._touch(served, before, served.plan.frontends)
        if served.plan.protocol is Protocol.UDP:
            self._of_udp[served] = None
        else:
            self._of_udp.pop(served, None)
        self._kernel_turns.choose(served, self.auto_paths.follow(served.plan))
        self._serve(served, preferred)

    def detour(
        self, service: ServiceKey, detours: Mapping[At, SocketAddress], why: Callable[[], Reasons]
    ) -> None:
        """Dial endpoints of a Service at other addresses; applied on return.

        Args:
            detours: Addresses by endpoint; they replace the detours of earlier calls.
            why: Returns the reasons whenever they are shown.
        """
        self.detours.set(service, detours, why)
        for served in self.of_service(service):
            self._touch(served, served.plan.frontends, served.plan.frontends)
            self._serve(served, {})

    def cordon(self, service: ServiceKey, *, is_cordoned: bool) -> None:
        """Cordon the current endpoints of a Service, or uncordon them.

        Worker processes follow soon after the return. Open connections continue; new clients wait,
        and are served by endpoints added later. Terminating and unready endpoints are also
        cordoned: otherwise clients would use them once no other endpoint is left, or once ready.
        """
        ports = self.of_service(service)
        present = (verdict.address for served in ports for verdict in served.plan.verdicts)
        self.cordoned.set(service, present if is_cordoned else ())
        for served in ports:
            self._touch(served, served.plan.frontends, served.plan.frontends)
            self._serve(served, {})

    def retire(self, key: PortKey) -> None:
        """Mark a Service port for :meth:`close_retired`; idempotent."""
        served = self._served.pop(key, None)
        if served is None:
            return
        self._touch(served, served.plan.frontends, ())
        self._by_group.pop(served.group, None)
        self._holding.pop(served, None)
        self._of_udp.pop(served, None)
        remove_from(self._by_service, key.name.service, key)
        self._problems.forget(key)
        self.shortages.shares.hold(key, 0)
        self.listeners.change(served)
        served.is_retired, served.is_listening_again = True, False
        self._retired.append(served)
        self.auto_paths.forget(key)
        self._kernel_turns.forget(served)

    def close_recovered(self) -> None:
        """Close unused listeners of an earlier run; their waiting clients are refused."""
        self._plane.close_recovered()

    def close_retired(self) -> None:
        """Close listeners that no Service port has taken over, and release unused node ports.

        Open connections continue. Call this once nothing is steered to these listeners.
        """
        self._reservations.release_unused()
        retired, self._retired = self._retired, []
        closed = self._plane.close_unwanted()
        for served in retired:
            closed += self._plane.close_group(served.group)
        self._addresses.give(closed)
        self._giving_up.clear()

    def switch_paths(self, *, may_enter: bool = True) -> None:
        """Choose paths by probe results; if ``may_enter``, move some ports to the kernel path."""
        for key, wanted in self.auto_paths.take().items():
            served = self._served[key]
            if wanted.path is DataPath.USERSPACE and wanted.path is not served.chosen.path:
                self.steered.switch(served)
            self._kernel_turns.choose(served, wanted, is_switch=True)
        for served, is_switch in self._kernel_turns.take(may_enter=may_enter):
            self.steered.touch(served)
            if is_switch:
                self.steered.switch(served)
        if self._kernel_turns.waiting:
            self.auto_paths.on_change()

    def retry(self) -> Iterator[bool]:
        """Retry failed listeners; yield after each step whether something has changed.

        Waiting Service ports are retried in turn until one still lacks a common resource; then, at
        a limit of this proxy, ports of the largest namespaces or Services give up their listeners.
        """
        shares = self.shortages.shares
        self._addresses.start_over(is_short=shares.next_waiting() is not None)
        self._reservations.bind_again()
        for served in list(self._problems.incomplete.values()):
            if not served.is_retired:
                yield self._serve_again(served)
        while (key := shares.next_waiting()) is not None:
            yield self._serve_again(self._served[key], is_turn=True)
            if shares.is_waiting(key):
                break
        for giver in shares.givers() if self.shortages.can_share else ():
            served = self._served[giver]
            self._giving_up.add(served)
            self._serve_again(served)
            yield True

    def _serve_again(self, served: ServedPort, *, is_turn: bool = False) -> bool:
        """Open a port's missing listeners, or give its listeners up.

        Returns whether the port's problem ended, or other programs hold different node ports now.
        """
        held = served.held_by_others
        self._touch(served, served.plan.frontends, served.plan.frontends)
        self._serve(served, {}, is_turn=is_turn)
        return served.is_listening_again or served.held_by_others != held

    def close(self) -> None:
        for key in list(self._served):
            self.retire(key)
        self.auto_paths.close()
        self.close_retired()
        self._reservations.close()

    def _serve(
        self, served: ServedPort, preferred: Mapping[Frontend, int], *, is_turn: bool = False
    ) -> None:
        """Serve a Service port in the plane, and record unavailable listeners.

        Args:
            is_turn: Whether the port may open listeners although other ports wait for listeners.
        """
        self.steered.show_unsteered(served)
        error = self._take_node_ports(served)
        plan, before = served.plan, set(served.listeners.values())
        # A Service port needn't wait for its preferred port, which no other Service port gets.
        is_turn |= not self.shortages.shares.others_wait(plan.key)
        is_turn |= any(f in preferred for f in plan.frontends)
        is_left_to_others = not before and served.held_by_others.issuperset(plan.frontends)
        gives_up = served in self._giving_up
        has_none = is_left_to_others or gives_up
        wanted = {} if has_none else self._addresses.wanted(plan, preferred, may_open=is_turn)
        if plan.serving.handling.hold is None:
            self._holding.pop(served, None)
        else:
            self._holding[served] = None
        serving = self.cordoned.lead(plan.key.name.service, self.detours.lead(plan))
        answer = self._plane.serve(served.group, serving, wanted)
        served.listeners = self.listeners.change(served, self._addresses.by_frontend(plan, answer))
        now = set(served.listeners.values())
        self._addresses.take(now - before)
        self.shortages.shares.hold(plan.key, len(now))
        for key, why in answer.errors.items():
            # If the listener is open, and refuses clients, the error isn't about opening it.
            is_open = why is not None and key in answer.listeners
            error = why if is_open else self._addresses.explain(plan, key, why)
        waits = gives_up or (not is_turn and None in answer.errors.values())
        self._problems.note(served, error, waits=waits)

    def _holder_of(self, protocol: Protocol, family: IPFamily, ports: Collection[int]) -> str:
        return self._reservations.holder(protocol, family, ports, now=self._clock())

    def _take_node_ports(self, served: ServedPort) -> ListenError | None:
        """Reserve the node ports that rules redirect; return why one isn't available, or None."""
        if self._bind is not Bind.PROXY_PORT:
            return None
        held = self._reservations.take_all(served.plan.frontends, now=self._clock())
        served.held_by_others = frozenset(held) if held else NOT_HELD
        return ListenError(next(reversed(held.values())), hint=HELD_HINT) if held else None

    def _touch(
        self, served: ServedPort, before: Iterable[Frontend], now: Iterable[Frontend]
    ) -> None:
        """Mark a Service port as possibly changed, and update the uses of its node ports."""
        self.steered.touch(served)
        if self._bind is Bind.PROXY_PORT and before is not now:
            self._reservations.count_uses(node_ports(before), node_ports(now))
