"""The blocking part of a steering mechanism: changes the kernel, and undoes refused changes.

    agent ── ProgrammedSteering ── one thread ── Programmer ── kernel

    first apply ─▶ _load            change ─▶ difference ─▶ _write ── refused ─▶ _restore

Rule 1: each frontend has a port: its proxy port, or, if the frontend is refused, the refuse port,
or 0 if the mechanism has no refuse port.
"""

from __future__ import annotations

import abc
import bisect
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from ..errors import SteeringError
from ..filters.chains import Tables
from ..filters.endpoints import dropping_chain
from ..filters.frontends import EarlierChains, Followed, Translation
from ..kernel.conntrack import PROTOCOL_NUMBERS, SINGLE, Change, Range, StaleEntries
from ..kernel.interfaces import PreroutingAddress
from ..kernel.one_thread import InOneThread
from ..model import Frontend, IPFamily, Protocol, SocketAddress, Taken, pack_ip
from .base import (
    REFUSE,
    Bind,
    EndpointChoice,
    KernelTarget,
    Refusal,
    Steering,
    SteeringFacts,
    Target,
    nothing_applied,
    render_targets,
)
from .names import is_own_table
from .pod_links import read_client_links, read_link_to

Ports = dict[Frontend, int]
Affected = Mapping[Frontend, int | None]
"""The ports of some frontends; None if the frontend isn't steered."""

# The maximum number of freed ports whose former frontends are remembered. Freed ports are reused
# last, so a port is reused while a client still retransmits its SYN only if the range is nearly
# exhausted.
_LEFT_MAX = 256


class Programmer(abc.ABC):
    """One proxy's state in the kernel, in the calling thread's network namespace.

    Methods without a docstring are the blocking forms of methods of :class:`.base.Steering`.
    """

    def __init__(self) -> None:
        self._applied: Ports | None = None
        """The desired ports; None before the first ``apply``."""
        self._earlier = EarlierChains(self._translation_of, is_own_table, read_client_links)
        self._taken_earlier: Mapping[Frontend, Taken] = {}

    @property
    def needs_transparent(self) -> bool:
        return True

    def unguarded(self) -> str:
        return ""

    def unsteered(self) -> Mapping[Frontend, str | Taken]:
        return self._taken_earlier

    def filters(self) -> Sequence[Followed]:
        """Return the chains of other programs that may drop or translate endpoints' packets."""
        return self._earlier.filters

    @abc.abstractmethod
    def start(self) -> Ports: ...

    def apply(self, ports: Ports) -> None:
        """Apply the desired ports; the dictionary is kept, so the caller mustn't change it."""
        if self._applied is not None:
            self.change({**dict.fromkeys(self._applied.keys() - ports.keys()), **ports})
            return
        self._applied = ports
        try:
            self._load()
        except SteeringError:
            self._applied = None
            raise

    def change(self, affected: Affected) -> None:
        applied = self._applied
        if applied is None:
            raise nothing_applied()
        affected = {f: port for f, port in affected.items() if applied.get(f) != port}
        if not affected:
            return
        before = {frontend: applied.get(frontend) for frontend in affected}
        _merge(applied, affected)
        self._earlier.forget()
        try:
            self._write(before, affected)
        except SteeringError:
            _merge(applied, before)
            with contextlib.suppress(SteeringError):
                self._restore(affected, before)
            raise

    @abc.abstractmethod
    def in_force(self) -> Ports:
        """Return the ports of steered frontends, read from the kernel."""

    def repair(self) -> int:
        return 0 if self._applied is None else self._repair()

    def look_at_others(self, legacy: Tables) -> None:
        """Read other programs' chains that precede this proxy's; called after start and repairs.

        Args:
            legacy: See :meth:`ProgrammedSteering.note_legacy`.
        """
        self._earlier.take_legacy(legacy)
        self._taken_earlier = self._earlier.look((self._applied or {}).keys())

    @abc.abstractmethod
    def clean_up(self) -> None: ...

    def close(self) -> None:
        self._earlier.close()

    def _translation_of(self, _frontend: Frontend) -> Translation:
        return Translation()

    @abc.abstractmethod
    def _load(self) -> None:
        """Write the desired state for the first time."""

    @abc.abstractmethod
    def _write(self, before: Affected, affected: Affected) -> None:
        """Write a difference; the previous state must be in the kernel."""

    @abc.abstractmethod
    def _restore(self, affected: Affected, before: Affected) -> None:
        """Undo a refused change; any of its steps may have been applied."""

    @abc.abstractmethod
    def _repair(self) -> int: ...


class NatProgrammer(Programmer):
    """A programmer whose rules translate frontends to ports, and so create conntrack entries."""

    def __init__(self, facts: SteeringFacts) -> None:
        super().__init__()
        self._facts = facts
        self._address = PreroutingAddress(facts.node_addresses)
        self._entries = StaleEntries()
        self._to_ip = ""
        """The address for DNAT in PREROUTING; empty for the interface's address."""
        self._stale: dict[Frontend, frozenset[int]] = {}
        """Frontends whose stale conntrack entries must still be removed, with the ports to which
        they may have pointed: even failed steps may have been applied."""
        self._lost: set[IPFamily] = set()
        """Families that have lost an address since stale entries were last recorded."""
        self._left: dict[tuple[IPFamily, int | None], set[Frontend]] = {}
        """TCP frontends by their former proxy port, until a frontend is steered to it again."""
        self._replaced: set[Frontend] = set()
        """The frontends of :attr:`_stale` whose former port may serve other frontends."""

    def close(self) -> None:
        self._entries.close()
        self._address.close()
        super().close()

    def _note_stale(self, before: Affected) -> None:
        """Record the frontends whose conntrack entries may point to a wrong port after a change.

        TCP entries are unanswered SYNs, whatever their target: they bypassed the proxy, or a
        listener dropped them, by its filter or because its queue was full. If the old or the new
        port has no listener, the kernel refuses the SYNs there anyway. In that case, the listing,
        which takes 10 ms, is postponed until the port serves another Service port, which is soon if
        the range is nearly exhausted.
        """
        applied, without = self._applied or {}, {None, 0, self._facts.refuse_port}
        for frontend, port in before.items():
            if frontend.protocol is Protocol.UDP:
                self._note_led([(frontend, port)])
            elif port is None or without.isdisjoint((port, applied.get(frontend))):
                self._note_led([(frontend, None)])
        self._note_replaced({f: p for f, p in before.items() if f.protocol is Protocol.TCP})

    def _note_replaced(self, before: Affected) -> None:
        """Record the TCP frontends whose former port now serves another frontend.

        If no frontend is left, other programs may soon use all ports. Frontends that return to
        their port need no listing.
        """
        applied = self._applied or {}
        for frontend, port in before.items():
            if port not in (None, 0, self._facts.refuse_port):
                self._left.setdefault((frontend.family, port), set()).add(frontend)
        taken = {(f.family, applied.get(f)) for f in before} if applied else set(self._left)
        for family, now in taken:
            left = self._left.pop((family, now), ())
            replaced = [each for each in left if applied.get(each) != now]
            self._note_led((each, now) for each in replaced)
            self._replaced.update(replaced)
        while len(self._left) > _LEFT_MAX:
            del self._left[next(iter(self._left))]

    def _note_led(self, led: Iterable[tuple[Frontend, int | None]]) -> None:
        """Record a port to which each frontend may have pointed; None if the port is unknown."""
        for frontend, port in led:
            known = self._stale.get(frontend, frozenset())
            self._stale[frontend] = known if port is None else known | {port}

    def _note_earlier(self, led: Ports) -> None:
        """Record before the first apply that frontends' connections may have any destination.

        Args:
            led: The frontends' current ports, from an earlier run, or from a failed first apply
                that took effect anyway.
        """
        self._note_led((frontend, None) for frontend in self._applied or ())
        self._note_led(led.items())
        self._replaced.update(led)

    def _choose_ip(self) -> str:
        """Choose the address for DNAT; record the families of removed addresses.

        Flows that REDIRECT translated to a removed address of their interface would be sent there
        forever.
        """
        to_ip = self._address.choose(self._to_ip)
        self._lost |= self._address.take_lost()
        return to_ip

    def _choices(self, _frontend: Frontend) -> Collection[EndpointChoice]:
        """Return the endpoints to which entries of a frontend may point, besides its port."""
        return ()

    def _may_stay_at(self, frontend: Frontend) -> int | None:
        """Return the port to which entries of a frontend may point; None if it isn't steered.

        Entries that point to the refuse port are from refused clients; if there are endpoints now,
        the result is 0, because these clients may be served.
        """
        port = (self._applied or {}).get(frontend)
        return 0 if port == self._facts.refuse_port and self._choices(frontend) else port

    def _forget_stale(self) -> None:
        """Remove conntrack entries that were created before the frontends' current rules."""
        ports = self._applied or {}
        if self._lost:
            # Record frontends only once a change is applied, because a refused change would have
            # steered other frontends.
            self._note_led((f, None) for f in ports if f.family in self._lost)
            self._lost = set()
        if not self._stale:
            return
        here = frozenset(map(pack_ip, self._address.here))
        ranges = ranges_among(self._stale, ports)
        forget_entries(
            self._entries,
            self._stale,
            lambda frontend: Change(
                PROTOCOL_NUMBERS[frontend.protocol],
                frontend.address,
                self._stale[frontend],
                self._may_stay_at(frontend),
                self._choices(frontend),
                here,
                ranges.get(frontend, SINGLE),
                is_replaced=frontend in self._replaced,
            ),
        )
        self._stale, self._replaced = {}, set()

    def _forget_all(self, removed: Mapping[Frontend, int]) -> None:
        """Forget the desired state, and remove the conntrack entries of removed rules."""
        self._note_led(removed.items())
        # Any program may bind the frontends' former ports now, so TCP entries that point to them
        # are stale.
        self._replaced.update(removed)
        self._applied = {}
        self._forget_stale()
        self._applied = None


def ranges_among(
    frontends: Iterable[Frontend], steered: Iterable[Frontend]
) -> dict[Frontend, Range]:
    """Return the port ranges among some frontends, without the ports of other steered frontends.

    Args:
        steered: The steered frontends, whose ranges don't overlap.
    """
    ranges = [frontend for frontend in frontends if frontend.last]
    if not ranges:
        return {}
    singles: dict[tuple[str, Protocol], list[int]] = {(r.ip, r.protocol): [] for r in ranges}
    spans: dict[tuple[str, Protocol], list[tuple[int, int]]] = {at: [] for at in singles}
    for one in steered:
        at = one.ip, one.protocol
        if at not in singles:
            continue
        if one.last:
            spans[at].append((one.port, one.last))
        else:
            singles[at].append(one.port)
    for at in singles:
        singles[at].sort()
        spans[at].sort()
    return {
        one: Range(one.last, frozenset(_besides(one, singles[at], spans[at])))
        for one in ranges
        for at in [(one.ip, one.protocol)]
    }


def _besides(
    of: Frontend, singles: Sequence[int], spans: Sequence[tuple[int, int]]
) -> Iterator[int]:
    """Yield the ports of a range that other steered frontends use; both sequences are sorted."""
    yield from singles[bisect.bisect_left(singles, of.port) : bisect.bisect_right(singles, of.last)]
    # The preceding span may overlap the range.
    begin = max(0, bisect.bisect_left(spans, (of.port, 0)) - 1)
    end = bisect.bisect_left(spans, (of.last + 1, 0))
    for first, last in spans[begin:end]:
        if (first, last) != (of.port, of.last):
            yield from range(max(of.port, first), min(of.last, last) + 1)


def forget_entries(
    entries: StaleEntries,
    frontends: Collection[Frontend],
    change_of: Callable[[Frontend], Change],
) -> None:
    """Remove the stale conntrack entries of frontends.

    Raises:
        SteeringError: The kernel failed to list or remove entries.
    """
    for family in IPFamily:
        changes = [change_of(frontend) for frontend in frontends if frontend.family is family]
        if changes:
            entries.forget_changed(family, changes)


# If a legacy table has more rules than this, none is evaluated for the frontends: otherwise, each
# change of Services would take seconds.
_LEGACY_MAX = 5_000
Kind = TypeVar("Kind", bound=Programmer)
Result = TypeVar("Result")


class ProgrammedSteering(Steering, Generic[Kind]):
    """A steering mechanism whose methods all call a programmer in one thread.

    It works in the network namespace of the first thread that calls it.
    """

    def __init__(self, facts: SteeringFacts, make: Callable[[], Kind]) -> None:
        self.facts = facts
        # Calls to the kernel block, and their order matters, so one thread makes all of them.
        self._programmer = InOneThread(f"{self.name}-steering", make)
        self._filters: Sequence[Followed] = ()
        self._legacy: Tables = {}

    async def start(self) -> Mapping[Frontend, int]:
        def start_and_look(programmer: Kind) -> Ports:
            ports = programmer.start()
            # No frontend is known yet, but this opens all descriptors that later calls need.
            programmer.look_at_others(self._legacy)
            return ports

        return await self._do(start_and_look)

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        ports = self._ports(wanted)
        await self._do(lambda programmer: programmer.apply(ports))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        affected: Affected = {**dict.fromkeys(gone), **self._ports(changed)}
        await self._do(lambda programmer: programmer.change(affected))

    async def render(self) -> str:
        ports = await self._do(lambda programmer: programmer.in_force())
        refused = self._refuse_port
        return render_targets({f: REFUSE if p == refused else p for f, p in ports.items()})

    async def repair(self) -> int:
        def repair_and_look(programmer: Kind) -> int:
            count = programmer.repair()
            programmer.look_at_others(self._legacy)
            return count

        return await self._do(repair_and_look)

    def note_legacy(self, tables: Tables) -> None:
        rules = {at: sum(len(one.steps) for one in tables[at].values()) for at in tables}
        self._legacy = {at: tables[at] for at in tables if rules[at] <= _LEGACY_MAX}

    def dropping_chain(self, endpoint: SocketAddress, protocol: Protocol) -> str:
        # Without a descriptor, the kernel can't be queried, so no chain is certain.
        with contextlib.suppress(SteeringError):
            link = read_link_to(endpoint.ip)
            return dropping_chain(self._filters, endpoint, protocol, link, read_client_links)
        return ""

    async def clean_up(self) -> None:
        await self._do(lambda programmer: programmer.clean_up())

    async def close(self) -> None:
        await self._programmer.close()

    async def _do(self, call: Callable[[Kind], Result]) -> Result:
        def call_and_report(programmer: Kind) -> Result:
            result = call(programmer)
            # The owner reads these attributes only after it has awaited the call, so no lock is
            # needed.
            self.unsteered, self.unguarded = programmer.unsteered(), programmer.unguarded()
            self.needs_transparent = programmer.needs_transparent
            self._filters = programmer.filters()
            return result

        return await self._programmer.do(call_and_report)

    @property
    def _refuse_port(self) -> int:
        return self.facts.refuse_port if self.bind is Bind.PROXY_PORT else 0

    def _ports(self, targets: Mapping[Frontend, Target]) -> Ports:
        refused = self._refuse_port
        ports = {f: _port(target, refused) for f, target in targets.items()}
        if self.bind is Bind.PROXY_PORT and not all(ports.values()):
            frontend = next(frontend for frontend, port in ports.items() if not port)
            raise SteeringError(f"cannot refuse {frontend}: no refuse port was given")
        return ports


def _port(target: Target, refused: int) -> int:
    if isinstance(target, KernelTarget):
        return _port(target.port, refused)
    return refused if isinstance(target, Refusal) else target


def _merge(ports: Ports, affected: Affected) -> None:
    for frontend, port in affected.items():
        # Remove the old key: an equal frontend may be of another kind.
        ports.pop(frontend, None)
        if port is not None:
            ports[frontend] = port


Port = TypeVar("Port")


class ReleasedPorts(Generic[Port]):
    """Proxy ports that stay guarded until the second repair after their last frontend left.

        packet ─▶ nat, old rules: to port 36001 ─▶ guard, new rules: 36001 isn't guarded ─▶ socket

    A packet that was translated by the old rules may arrive at the new guard. If the guard released
    a port together with its last frontend, a program that has bound the port by then, for example
    after a crash of the proxy, would receive the client's packets. Ports are in the form that the
    guard rules use.
    """

    def __init__(self) -> None:
        self._recent: set[Port] = set()
        self._earlier: set[Port] = set()

    def __iter__(self) -> Iterator[Port]:
        return iter(self._recent | self._earlier)

    def add(self, ports: Iterable[Port]) -> None:
        """Keep ports guarded; some of them may still be in use."""
        self._recent.update(ports)

    @contextlib.contextmanager
    def end_round(self) -> Iterator[set[Port]]:
        """Yield the ports that no longer need a guard; call it once per repair.

        Call it after the comparison, so that removing the ports doesn't count as drift. If the
        ``with`` block raises, the ports stay guarded.
        """
        ended = self._earlier - self._recent
        self._earlier, self._recent = self._recent, set()
        try:
            yield ended
        except SteeringError:
            self.add(ended)
            raise
