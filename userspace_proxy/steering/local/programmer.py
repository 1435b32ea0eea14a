"""Applies the desired state to the kernel; every call blocks, in one thread.

    difference ─▶ guard
    refused, or touched by others ─▶ kernel read in full ─▶ what differs

Open connections need the route of their packets: a TCP frontend that is no longer wanted
lingers, refusing new connections, until it has none.

Rule 1: unless another program has changed it, the kernel has what was written last.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Mapping

from ...errors import SteeringError
from ...model import Frontend, IPFamily, Protocol
from ..base import REFUSE, SteeringFacts, Target, nothing_applied
from .guards import make_guards
from .kernel import Kernel
from .rtnetlink import network_of
from .sockets_in_use import ports_of_daemons, with_connections
from .wanted import Touched, Wanted, is_loopback

# The agent asks each second. What ends a refusal mostly makes no event: a sysctl, a route that
# isn't local.
RETRY_EVERY = 10


class Programmer:
    """The routes and the guard of one proxy in this thread's network namespace.

    Args:
        facts: Of these the node's addresses, the proxy's name and the Service ranges are used.
        own_namespace: Whether the network namespace was made by us, for this.
        uses_nftables: Whether it may.

    Raises:
        SteeringError: Netlink sockets can't be opened.
    """

    def __init__(self, facts: SteeringFacts, *, own_namespace: bool, uses_nftables: bool) -> None:
        self._facts = facts
        self._kernel = Kernel()
        self._guard, *self._others = make_guards(
            self._kernel, facts, own_namespace=own_namespace, uses_nftables=uses_nftables
        )
        self._wanted = Wanted(
            facts.service_cidrs if own_namespace else (), lets_in=self._has_connections
        )
        self._connected: set[Frontend] = set()
        """Refused ones with open connections, where a guard doesn't know connections."""
        self._lingering: set[Frontend] = set()
        """Those that nobody wants any more; for the guard they are refused ones."""
        self._is_applied = False
        self._is_known = False
        """Whether what is in the kernel is what we wrote last."""
        self._repairs = itertools.count(1)

    @property
    def needs_transparent(self) -> bool:
        """As in :class:`~..base.Steering`."""
        return self._guard.needs_transparent

    @property
    def unguarded(self) -> str:
        """As in :class:`~..base.Steering`."""
        return self._guard.unguarded

    def apply(self, targets: Mapping[Frontend, Target]) -> None:
        """Bring exactly these frontends here.

        Raises:
            SteeringError: The kernel refused; what was in force is.
        """
        if self._is_applied:
            wanted = self._wanted.targets
            gone = wanted.keys() - targets.keys() - self._lingering
            self.change({**dict.fromkeys(gone), **targets})
            return
        self._wanted.change(targets)
        try:
            for guard in self._others:
                # An earlier run may have had no nftables, or this one may have none.
                guard.clean_up()
            self._put_right()
        except SteeringError:
            self._wanted.change(dict.fromkeys(targets))
            raise
        self._is_applied = True

    def change(self, touched: Touched) -> None:
        """Bring some frontends here, or no longer (None).

        Raises:
            SteeringError: The kernel refused and what was in force is; or nothing was applied.
        """
        if not self._is_applied:
            raise nothing_applied()
        have, was_lingering = self._wanted.targets, frozenset(self._lingering)
        touched = self._lingered(touched)
        touched = {f: target for f, target in touched.items() if have.get(f) != target}
        if not touched:
            return
        before = {frontend: have.get(frontend) for frontend in touched}
        self._find_connected(f for f, target in touched.items() if target is REFUSE)
        difference = self._wanted.change(touched)
        try:
            if self._is_touched():
                self._put_right()
                return
            try:
                self._guard.change(difference, self._wanted)
            except SteeringError:
                self._put_right()
        except SteeringError:
            self._wanted.change(before)
            self._lingering = set(was_lingering)
            with contextlib.suppress(SteeringError):
                self._put_right()
            raise

    def repair(self) -> int:
        """Put right what differs from what was asked for; return how much did.

        Raises:
            SteeringError: The kernel refused.
        """
        if not self._is_applied:
            return 0
        is_retry = next(self._repairs) % RETRY_EVERY == 0 and bool(self._wanted.refused)
        count = self._put_right() if self._is_touched() or is_retry else 0
        self._forget_lingering()
        self._follow_connections()
        return count

    def unsteered(self) -> dict[Frontend, str]:
        """Return the frontends that the kernel refuses to bring here, with the causes."""
        found = self._wanted.unsteered()
        return {frontend: why for frontend, why in found.items() if frontend not in self._lingering}

    def in_force(self) -> dict[Frontend, Target]:
        """Return the targets of frontends that are in force as they were asked for."""
        if not self._is_applied:
            return {}
        is_as_wanted = self._guard.look(self._wanted)
        return {
            frontend: target
            for frontend, target in self._wanted.targets.items()
            if frontend not in self._lingering and is_as_wanted(frontend)
        }

    def clean_up(self) -> None:
        """Remove all that is this proxy's; idempotent."""
        for guard in (self._guard, *self._others):
            guard.clean_up()
        self._wanted.change(dict.fromkeys(list(self._wanted.targets)))
        self._lingering.clear()
        self._is_applied = self._is_known = False

    def close(self) -> None:
        """Let go of all sockets; what is in force stays in force."""
        for guard in (self._guard, *self._others):
            guard.close()
        self._kernel.close()

    def _lingered(self, touched: Touched) -> Touched:
        """Return what is touched, where what goes may linger, and note which do."""
        lingered = dict(touched)
        for frontend, target in touched.items():
            is_wanted = frontend in self._wanted.targets
            may_linger = frontend.protocol is Protocol.TCP and not is_loopback(frontend.ip)
            if target is None and is_wanted and may_linger:
                self._lingering.add(frontend)
                lingered[frontend] = REFUSE
            elif target is not None:
                self._lingering.discard(frontend)
        return lingered

    def _forget_lingering(self) -> None:
        if self._lingering:
            idle = self._lingering - with_connections(self._lingering)
            self._lingering -= idle
            if idle:
                self._guard.change(self._wanted.change(dict.fromkeys(idle)), self._wanted)

    def _has_connections(self, frontend: Frontend) -> bool:
        return frontend in self._connected

    def _find_connected(self, refused: Iterable[Frontend]) -> None:
        """Find which of some refused frontends must be let in, for their connections."""
        if self._guard.knows_connections:
            return
        asked = {frontend for frontend in refused if frontend.protocol is Protocol.TCP}
        if asked:
            daemons = ports_of_daemons()
            # What is open isn't worth that a daemon answers.
            safe = {f for f in asked if (f.protocol, f.port) not in daemons}
            self._connected -= asked
            self._connected |= with_connections(safe)

    def _follow_connections(self) -> None:
        """Let refused frontends in no longer when their last connection has ended."""
        asked = set(self._connected)
        if asked:
            self._find_connected(asked)
            difference = self._wanted.reconsider(asked - self._connected)
            self._guard.change(difference, self._wanted)

    def _is_touched(self) -> bool:
        """Return whether the kernel must be read in full."""
        heard = self._kernel.heard()
        if heard.is_touched or self._guard.is_touched() or any(map(self._minds, heard.addresses)):
            self._is_known = False
        return not self._is_known

    def _minds(self, ip: str) -> bool:
        """Return whether an address that came or went changes what is wanted."""
        wanted = self._wanted
        # Of each pod's interface a link-local address comes, which is never a source.
        is_source = wanted.sources.get(IPFamily.of(ip), ip) == ip and not ip.startswith("fe80:")
        return is_source or wanted.minds(network_of(ip))

    def _put_right(self) -> int:
        """Write what differs; return how much did."""
        self._is_known = False
        # What is heard of before the reading is in it.
        self._kernel.heard()
        self._wanted.set_theirs(self._kernel.local_table().others)
        self._choose_sources()
        count = self._guard.put_right(self._wanted)
        self._is_known = True
        return count

    def _choose_sources(self) -> None:
        """Choose what clients of this node are seen as; an address stays while it is there."""
        addresses = self._kernel.sources()
        for family in IPFamily:
            candidates = [
                self._wanted.sources.get(family, ""),
                *self._facts.node_addresses,
                *addresses,
            ]
            ours = (ip for ip in candidates if ip in addresses and IPFamily.of(ip) is family)
            source = next(ours, "")
            if source:
                self._wanted.sources[family] = source
            else:
                self._wanted.sources.pop(family, None)
