"""Synchronizes routes and guard in the kernel with the desired state.

    difference ─▶ guard
    refused, or changed by others ─▶ kernel read in full ─▶ differences

Open connections need a route for their packets, so a removed TCP frontend lingers, and refuses new
connections, until it has no open connection. Frontends of an earlier run also linger, because that
run's workers may still serve connections.

A flow that another steering mode or program has translated bypasses the listener because of its
conntrack entry, so such entries of new frontends are removed.

Rule 1: the kernel is assumed to have the last written state unless an event shows another change.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping

from ...errors import SteeringError, SteeringUnreadable
from ...kernel.conntrack import PROTOCOL_NUMBERS, Change, StaleEntries
from ...kernel.offers import LACKS_NOTHING, KernelOffers
from ...kernel.port_holders import connected_at
from ...kernel.privileges import has_net_admin
from ...kernel.tracking import read_table
from ...model import Frontend, IPFamily, Protocol, Taken, is_loopback, own_network, pack_ip
from ..base import Bind, SteeringFacts
from ..programmer import Affected, Ports, ProgrammedSteering, Programmer, forget_entries
from .desired import REFUSED, DesiredState
from .guard import make_guard
from .kernel import RoutingTables

# Every tenth repair retries refused networks; the agent repairs every second. Most changes that end
# a refusal cause no event, such as a change of a sysctl or of a route that isn't local.
RETRY_EVERY = 10


class LocalSteering(ProgrammedSteering["LocalProgrammer"]):
    """Steering by routes to this node, where the frontends' listeners are bound.

    Args:
        own_namespace: Whether the network namespace was created for this proxy.
    """

    name = "local"
    bind = Bind.FRONTEND

    def __init__(
        self,
        facts: SteeringFacts,
        *,
        own_namespace: bool = False,
        kernel: KernelOffers = LACKS_NOTHING,
    ) -> None:
        super().__init__(facts, lambda: LocalProgrammer(facts, kernel, own_namespace=own_namespace))

    async def forget_stale(self) -> None:
        await self._do(lambda programmer: programmer.forget_stale())


class LocalProgrammer(Programmer):
    """The routes and the guard of one proxy; the constructor may raise a SteeringError."""

    def __init__(self, facts: SteeringFacts, kernel: KernelOffers, *, own_namespace: bool) -> None:
        super().__init__()
        self._facts = facts
        self._tables = RoutingTables()
        self._desired = DesiredState(facts.service_cidrs if own_namespace else ())
        try:
            self._guard = make_guard(
                self._tables,
                facts,
                self._desired,
                own_namespace=own_namespace,
                kernel=kernel,
            )
        except SteeringError:
            self._tables.close()
            raise
        self._lingering: set[Frontend] = set()
        """Removed frontends; the guard treats them as refused."""
        self._is_known = False
        """Whether the kernel contains the last written state."""
        self._repairs = itertools.count(1)
        self._entries = StaleEntries()
        self._new: set[Frontend] = set()
        """Frontends whose stale conntrack entries must still be removed."""

    @property
    def needs_transparent(self) -> bool:
        return self._guard.needs_transparent

    def unguarded(self) -> str:
        return self._guard.unguarded()

    def unsteered(self) -> Mapping[Frontend, str | Taken]:
        found: dict[Frontend, str | Taken] = {**self._taken_earlier, **self._desired.unsteered()}
        return {frontend: why for frontend, why in found.items() if frontend not in self._lingering}

    def start(self) -> Ports:
        """Return the frontends' own ports, because there are no proxy ports.

        The first ``apply`` corrects the state that an earlier run left.
        """
        return {frontend: frontend.port for frontend in self._guard.recover()}

    def apply(self, ports: Ports) -> None:
        new = ports.keys() - (self._applied or {}).keys()
        super().apply(ports)
        self._note_new(new)
        self.forget_stale()

    def change(self, affected: Affected) -> None:
        applied = self._applied or {}
        new = [f for f, port in affected.items() if port is not None and f not in applied]
        super().change(affected)
        self._note_new(new)

    def forget_stale(self) -> None:
        """Remove stale conntrack entries; each repair retries failures."""
        with contextlib.suppress(SteeringError):
            self._forget_stale()

    def in_force(self) -> Ports:
        """Return the ports of frontends for which the kernel's routes and guard are as desired."""
        if self._applied is None:
            return {}
        is_as_desired = self._guard.look()
        return {f: port for f, port in self._applied.items() if is_as_desired(f)}

    def clean_up(self) -> None:
        self._guard.clean_up()
        self._desired.change(dict.fromkeys(list(self._desired.ports)))
        self._lingering.clear()
        self._new.clear()
        self._applied, self._is_known = None, False

    def close(self) -> None:
        self._guard.close()
        self._tables.close()
        self._entries.close()
        super().close()

    def _load(self) -> None:
        applied = self._applied or {}
        # Add to the set, because a retry may miss frontends that the first attempt has found.
        self._lingering |= self._left()
        self._lingering -= applied.keys()
        ports = {**dict.fromkeys(self._lingering, REFUSED), **applied}
        self._desired.change(ports)
        try:
            self._put_right()
        except SteeringError:
            self._desired.change(dict.fromkeys(ports))
            raise

    def _left(self) -> set[Frontend]:
        """Return the frontends of an earlier run that may have open connections.

        These are all admitted frontends, because clients may still connect to them, and refused
        frontends with open connections.
        """
        admitted = {one for one in self._guard.recover() if _may_linger(one)}
        return admitted | connected_at(self._guard.routed())

    def _write(self, before: Affected, affected: Affected) -> None:
        lingering, affected = frozenset(self._lingering), self._linger(before, affected)
        old = {frontend: self._desired.ports.get(frontend) for frontend in affected}
        difference = self._desired.change(affected)
        try:
            if self._is_affected():
                # If reading fails, assume that the kernel has the last written state; the next
                # repair reads it again.
                with contextlib.suppress(SteeringUnreadable):
                    self._put_right()
                    return
            try:
                self._guard.change(difference)
            except SteeringError:
                self._put_right()
        except SteeringError:
            self._desired.change(old)
            self._lingering = set(lingering)
            raise

    def _restore(self, affected: Affected, before: Affected) -> None:
        self._put_right()

    def _repair(self) -> int:
        is_retry = next(self._repairs) % RETRY_EVERY == 0 and bool(self._desired.refused)
        count = 0
        if self._is_affected() or is_retry:
            with contextlib.suppress(SteeringUnreadable):
                count = self._put_right()
        self._forget_lingering()
        self.forget_stale()
        return count

    def _note_new(self, new: Iterable[Frontend]) -> None:
        """Record frontends that weren't steered before, except on loopback addresses."""
        self._new.update(frontend for frontend in new if not is_loopback(frontend.ip))

    def _forget_stale(self) -> None:
        """Remove stale conntrack entries of new frontends.

        Without privileges, or while nothing is tracked, there is nothing to do.
        """
        if self._new and has_net_admin() and read_table().limit:
            forget_entries(
                self._entries,
                self._new & (self._applied or {}).keys(),
                lambda frontend: Change(
                    PROTOCOL_NUMBERS[frontend.protocol],
                    frontend.address,
                    before=(),
                    now=frontend.port,
                    here=frozenset({pack_ip(frontend.ip)}),
                ),
            )
        self._new.clear()

    def _linger(self, before: Affected, affected: Affected) -> Affected:
        """Record removed frontends that may linger; return the change with refusals instead."""
        lingering = {
            frontend
            for frontend, port in affected.items()
            if port is None and before[frontend] is not None and _may_linger(frontend)
        }
        self._lingering |= lingering
        self._lingering -= {frontend for frontend, port in affected.items() if port is not None}
        return {**affected, **dict.fromkeys(lingering, REFUSED)}

    def _forget_lingering(self) -> None:
        if self._lingering:
            idle = self._lingering - connected_at({one.ip for one in self._lingering})
            self._lingering -= idle
            if idle:
                try:
                    self._guard.change(self._desired.change(dict.fromkeys(idle)))
                except SteeringError:
                    # The next repair removes the rest.
                    self._is_known = False
                    raise

    def _is_affected(self) -> bool:
        """Read the kernel's events; return whether its state must be read in full."""
        changes = self._tables.changes()
        is_affected = changes.is_affected or self._guard.is_affected()
        if is_affected or any(map(self._matters, changes.addresses)):
            self._is_known = False
        return not self._is_known

    def _matters(self, ip: str) -> bool:
        """Return whether an address that the node gained or lost affects the desired state."""
        # Ignore the link-local address of each pod's interface, which is never chosen as a source.
        sources = self._desired.sources
        is_source = sources.get(IPFamily.of(ip), ip) == ip and not ip.startswith("fe80:")
        return is_source or self._desired.is_affected_by(own_network(ip))

    def _put_right(self) -> int:
        """Repair differences; return their number."""
        self._is_known = False
        # Discard earlier events, because the kernel's state is read after this.
        self._tables.changes()
        self._desired.set_node_networks(self._tables.local_table().others)
        self._choose_sources()
        count = self._guard.put_right()
        self._is_known = True
        return count

    def _choose_sources(self) -> None:
        """Choose the source addresses for clients on this node; keep a source while it exists."""
        addresses = self._tables.sources()
        for family in IPFamily:
            candidates = [
                self._desired.sources.get(family, ""),
                *self._facts.node_addresses,
                *addresses,
            ]
            usable = (ip for ip in candidates if ip in addresses and IPFamily.of(ip) is family)
            if source := next(usable, ""):
                self._desired.sources[family] = source
            else:
                self._desired.sources.pop(family, None)


def _may_linger(frontend: Frontend) -> bool:
    return frontend.protocol is Protocol.TCP and not is_loopback(frontend.ip)
