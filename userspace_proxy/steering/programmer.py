"""The blocking half of a steering: it changes the kernel, and undoes a change that is refused.

    agent ── ProgrammedSteering ── one thread ── Programmer ── kernel

    first apply ─▶ _load            change ─▶ only what differs ─▶ _write ── refused ─▶ _restore

Rule 1: each frontend has a port: its proxy port, or for a refused one the refuse port, or 0 for a
steering that has none.
"""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from ..errors import SteeringError
from ..filters.endpoints import dropping_chain
from ..filters.frontends import EarlierChains, Followed, Translation
from ..kernel import conntrack
from ..kernel.conntrack import PROTOCOL_NUMBERS, Change, Dialled
from ..kernel.interfaces import PreroutingAddress
from ..kernel.netlink.messages import pack_ip
from ..kernel.one_thread import InOneThread
from ..model import Frontend, IPFamily, Protocol, SocketAddress, Taken
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

Ports = dict[Frontend, int]
Touched = Mapping[Frontend, int | None]
"""The ports of some frontends; None: not steered."""


class Programmer(abc.ABC):
    """What one proxy has in the kernel of the calling thread's network namespace.

    The methods without a docstring are the blocking form of those of :class:`.base.Steering`.
    """

    def __init__(self) -> None:
        self._applied: Ports | None = None
        """The desired ports; None before the first ``apply``."""
        self._earlier = EarlierChains(self._translation_of, is_own_table)
        self._taken_earlier: Mapping[Frontend, Taken] = {}

    @property
    def needs_transparent(self) -> bool:
        return True

    def unguarded(self) -> str:
        return ""

    def unsteered(self) -> Mapping[Frontend, str | Taken]:
        return self._taken_earlier

    def filters(self) -> Sequence[Followed]:
        """Return the chains of other programs that may drop packets of endpoints."""
        return self._earlier.filters

    @abc.abstractmethod
    def start(self) -> Ports:
        """Part of Steering."""

    def apply(self, ports: Ports) -> None:
        """Part of Steering; keeps the dictionary."""
        if self._applied is not None:
            self.change({**dict.fromkeys(self._applied.keys() - ports.keys()), **ports})
            return
        self._applied = ports
        try:
            self._load()
        except SteeringError:
            self._applied = None
            raise

    def change(self, touched: Touched) -> None:
        applied = self._applied
        if applied is None:
            raise nothing_applied()
        touched = {f: port for f, port in touched.items() if applied.get(f) != port}
        if not touched:
            return
        before = {frontend: applied.get(frontend) for frontend in touched}
        _merge(applied, touched)
        self._earlier.forget()
        try:
            self._write(before, touched)
        except SteeringError:
            _merge(applied, before)
            with contextlib.suppress(SteeringError):
                self._restore(touched, before)
            raise

    @abc.abstractmethod
    def in_force(self) -> Ports:
        """Return the ports of frontends that are steered now, read from the kernel."""

    def repair(self) -> int:
        return 0 if self._applied is None else self._repair()

    def look_at_others(self) -> None:
        """Follow chains of other programs that take packets before; called after a repair."""
        self._taken_earlier = self._earlier.look((self._applied or {}).keys())

    @abc.abstractmethod
    def clean_up(self) -> None:
        """Part of Steering."""

    def close(self) -> None:
        self._earlier.close()

    def _translation_of(self, _frontend: Frontend) -> Translation:
        return Translation()

    @abc.abstractmethod
    def _load(self) -> None:
        """Write the desired state for the first time."""

    @abc.abstractmethod
    def _write(self, before: Touched, touched: Touched) -> None:
        """Write a difference on top of what was written last."""

    @abc.abstractmethod
    def _restore(self, touched: Touched, before: Touched) -> None:
        """Undo a refused change, of which any part may be in force."""

    @abc.abstractmethod
    def _repair(self) -> int: ...


class NatProgrammer(Programmer):
    """A programmer whose rules translate frontends to ports, and so leave conntrack entries."""

    def __init__(self, facts: SteeringFacts) -> None:
        super().__init__()
        self._facts = facts
        self._address = PreroutingAddress(facts.node_addresses)
        self._to_ip = ""
        """Where PREROUTING translates to; empty for the interface's address."""
        self._stale: dict[Frontend, frozenset[int]] = {}
        """Frontends whose stale conntrack entries are still to be removed, and the ports that
        they may have led to before: steps that failed may have been in force, too."""
        self._lost: set[IPFamily] = set()
        """Families of addresses that were lost since entries were noted for that."""

    def _note_stale(self, before: Touched) -> None:
        """Note the frontends whose entries may lead to the wrong port after a change.

        Of TCP these are SYNs without an answer, wherever they lead: they bypassed the proxy, or a
        listener has dropped them, by its filter or because its queue was full. Where one port is
        without a listener, those are refused anyway: listing all entries takes 10 ms.
        """
        applied, without = self._applied or {}, {None, 0, self._facts.refuse_port}
        for frontend, port in before.items():
            if frontend.protocol is Protocol.UDP:
                self._note_led([(frontend, port)])
            elif port is None or without.isdisjoint((port, applied.get(frontend))):
                self._note_led([(frontend, None)])

    def _note_led(self, led: Iterable[tuple[Frontend, int | None]]) -> None:
        """Note ports that frontends have led to, perhaps several of one; None: anywhere."""
        for frontend, port in led:
            known = self._stale.get(frontend, frozenset())
            self._stale[frontend] = known if port is None else known | {port}

    def _note_earlier(self, led: Ports) -> None:
        """Note before the first apply that connections may lead anywhere; no rules were maintained.

        Args:
            led: The ports that frontends are led to now: by an earlier run, or by a first apply
                that failed although it is in force.
        """
        self._note_led((frontend, None) for frontend in self._applied or ())
        self._note_led(led.items())

    def _choose_ip(self) -> str:
        """Return where PREROUTING is to translate to; note what led to addresses that are gone.

        REDIRECT, too, led flows to an address of their interface, and they would follow it forever.
        """
        to_ip = self._address.choose(self._to_ip)
        self._lost |= self._address.take_lost()
        return to_ip

    def _choices(self, _frontend: Frontend) -> Collection[EndpointChoice]:
        """Return endpoints that UDP flows of a frontend may lead to, besides its port."""
        return ()

    def _forget_stale(self) -> None:
        """Remove the conntrack entries that frontends got under other rules, or without any."""
        ports = self._applied or {}
        if self._lost:
            # Only now: within a change that is refused later, other frontends were to be steered.
            self._note_led((f, None) for f in ports if f.family in self._lost)
            self._lost = set()
        if not self._stale:
            return
        here = frozenset(map(pack_ip, self._address.here))
        forget_entries(
            self._stale,
            lambda frontend: Change(
                PROTOCOL_NUMBERS[frontend.protocol],
                Dialled(frontend.ip, frontend.port),
                self._stale[frontend],
                ports.get(frontend),
                self._choices(frontend),
                here,
            ),
        )
        self._stale = {}

    def _forget_all(self, removed: Mapping[Frontend, int]) -> None:
        """Forget the desired state, and remove the conntrack entries of rules that were removed."""
        self._note_led(removed.items())
        self._applied = {}
        self._forget_stale()
        self._applied = None


def forget_entries(
    frontends: Collection[Frontend], change_of: Callable[[Frontend], Change]
) -> None:
    """Remove the conntrack entries of frontends that lead elsewhere.

    Raises:
        SteeringError: The kernel doesn't list or remove entries.
    """
    for family in IPFamily:
        changes = [change_of(frontend) for frontend in frontends if frontend.family is family]
        if changes:
            conntrack.forget_changed(family, changes)


Kind = TypeVar("Kind", bound=Programmer)
Result = TypeVar("Result")


class ProgrammedSteering(Steering, Generic[Kind]):
    """A steering whose methods call a programmer, all in one thread.

    Its network namespace is that of the thread that calls the first method.
    """

    def __init__(self, facts: SteeringFacts, make: Callable[[], Kind]) -> None:
        self.facts = facts
        # Calls to the kernel block, and none may overtake another.
        self._programmer = InOneThread(f"{self.name}-steering", make)
        self._filters: Sequence[Followed] = ()

    async def start(self) -> Mapping[Frontend, int]:
        def start_and_look(programmer: Kind) -> Ports:
            ports = programmer.start()
            # Nothing is known of them yet, but the process has all its descriptors from now on.
            programmer.look_at_others()
            return ports

        return await self._do(start_and_look)

    async def apply(self, wanted: Mapping[Frontend, Target]) -> None:
        ports = self._ports(wanted)
        await self._do(lambda programmer: programmer.apply(ports))

    async def change(self, changed: Mapping[Frontend, Target], gone: Collection[Frontend]) -> None:
        touched: Touched = {**dict.fromkeys(gone), **self._ports(changed)}
        await self._do(lambda programmer: programmer.change(touched))

    async def render(self) -> str:
        ports = await self._do(lambda programmer: programmer.in_force())
        refused = self._refuse_port
        return render_targets({f: REFUSE if p == refused else p for f, p in ports.items()})

    async def repair(self) -> int:
        def repair_and_look(programmer: Kind) -> int:
            count = programmer.repair()
            programmer.look_at_others()
            return count

        return await self._do(repair_and_look)

    def dropping_chain(self, endpoint: SocketAddress, protocol: Protocol) -> str:
        return dropping_chain(self._filters, endpoint, protocol)

    async def clean_up(self) -> None:
        await self._do(lambda programmer: programmer.clean_up())

    async def close(self) -> None:
        await self._programmer.close()

    async def _do(self, call: Callable[[Kind], Result]) -> Result:
        def call_and_report(programmer: Kind) -> Result:
            result = call(programmer)
            # The owner waits for them meanwhile.
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
        return target.port
    return refused if isinstance(target, Refusal) else target


def _merge(ports: Ports, touched: Touched) -> None:
    for frontend, port in touched.items():
        if port is None:
            ports.pop(frontend, None)
        else:
            ports[frontend] = port


Port = TypeVar("Port")


class ReleasedPorts(Generic[Port]):
    """Proxy ports that stay guarded until the second repair after their last frontend has left.

        packet ─▶ nat, old rules: to port 36001 ─▶ guard, new rules: 36001 isn't guarded ─▶ socket

    A packet that the old rules have translated may meet the new guard. If a port left the guard
    with its last frontend, any program that has bound it meanwhile, say after a crash of the
    proxy, would get that client. The ports have the form of one steering's guard.
    """

    def __init__(self) -> None:
        self._recent: set[Port] = set()
        self._earlier: set[Port] = set()

    def __iter__(self) -> Iterator[Port]:
        return iter(self._recent | self._earlier)

    def add(self, ports: Iterable[Port]) -> None:
        """Keep ports guarded; those in use may be among them."""
        self._recent.update(ports)

    @contextlib.contextmanager
    def end_round(self) -> Iterator[set[Port]]:
        """Yield the ports that need no guard any more; called once by each repair.

        After its comparison, so that their end is no drift. If it raises, they stay guarded.
        """
        ended = self._earlier - self._recent
        self._earlier, self._recent = self._recent, set()
        try:
            yield ended
        except SteeringError:
            self.add(ended)
            raise
