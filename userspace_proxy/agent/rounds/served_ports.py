"""The Service ports that are served: their listeners follow the plan.

Rule 1: a listener that can't be opened is a problem of its Service port alone: it is logged, the
frontend refuses, and it is retried.
Rule 2: nothing here awaits: a change is one step of the loop, so traffic sees the state before or
after it.
Rule 3: a Service port that takes over a frontend takes over its listener with the clients in its
queue: no client is refused while a policy, or the Service that has an address, changes.
Rule 4: the cost of a round depends on the Service ports that change, not on how many there are.
Rule 5: what lacks a common resource waits for its turn: ``listener_shares`` decides whose it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ...errors import ListenError
from ...facts import PortFacts
from ...log_fields import FieldLogger
from ...model import (
    Frontend,
    FrontendKind,
    IPFamily,
    Path,
    Protocol,
    ServiceKey,
    Serving,
    SocketAddress,
)
from ...plan import PortKey, PortPlan
from ...plane import Group, Listener, Plane, PortPool
from ...policy import DEFAULT_PATH, PathChoice
from ...status import paths
from ...status.paths import PathView
from ...steering import REFUSE, Bind, Target
from ..endpoint_view import Faults
from .auto_paths import AutoPaths
from .kernel_path import forward
from .listen_addresses import HELD_HINT, ListenAddresses, ListenerIndex
from .node_ports import NodePort, NodePortHolds, node_ports
from .shortages import Shortages, is_shortage

if TYPE_CHECKING:
    from ...faults.endpoint_faults import At

_log = FieldLogger("userspace_proxy.agent")

_NOTHING: Mapping[Frontend, Target] = {}


@dataclass(slots=True, eq=False)
class ServedPort:
    """A Service port that is served: its group, its listeners, its problem."""

    plan: PortPlan
    group: Group
    listeners: dict[Frontend, Listener] = field(default_factory=dict)
    """By frontend; with proxy ports they all share one listener."""
    not_listening: ListenError | None = None
    """Why a listener or node port isn't available; None once all are, and rules lead to them."""
    is_listening_again: bool = False
    """That is over, but rules don't lead to the listeners yet."""
    unsteered: Mapping[Frontend, str] = field(default_factory=dict)
    """Frontends that can't be steered, with the causes."""
    held_by_others: set[Frontend] = field(default_factory=set)
    """Node ports that a daemon of the node uses, and keeps."""
    steered: Mapping[Frontend, Target] = field(default_factory=lambda: _NOTHING)
    """Where its frontends are steered."""
    shown: tuple[PortFacts, object] | None = None
    """The last view of it, and what that was made from beside the plan."""
    wake_problem: str = ""
    """Why the workload that its clients wait for wasn't scaled; empty if it was, or needn't be."""
    path: PathView = paths.DEFAULT
    """How new connections travel now."""
    chosen: PathChoice = DEFAULT_PATH
    """How they travel from the next change of the steering on."""
    was_in_kernel: bool = False
    """UDP flows may lead straight to endpoints."""
    is_retired: bool = False
    """It closes once nothing is steered to it."""

    @property
    def problem(self) -> str:
        """Why it isn't served, or not at every frontend; empty if it is."""
        return str(self.not_listening or "") or next(iter(self.unsteered.values()), "")

    @property
    def way_out(self) -> str:
        """How to solve the problem, as at the end of its text in brackets; empty if unknown."""
        return self.not_listening.hint if self.not_listening is not None else ""


class SteeringChange(NamedTuple):
    """How the steering has to change."""

    changed: Mapping[Frontend, Target]
    gone: frozenset[Frontend]
    targets: tuple[tuple[ServedPort, Mapping[Frontend, Target]], ...]
    """All targets of each Service port that may differ."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


class ServedPorts:
    """The Service ports that one proxy serves.

    Args:
        transparent: The steering needs transparent sockets.
        second_port: As in ``Options``.
    """

    def __init__(
        self,
        plane: Plane,
        bind: Bind,
        pool: PortPool,
        *,
        transparent: bool = False,
        second_port: Callable[[Frontend], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self._plane = plane
        self._bind = bind
        self._clock = clock
        self._holds = NodePortHolds()
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
        self._retired: list[ServedPort] = []
        self._touched: dict[ServedPort, None] = {}
        """Those whose targets may differ from where they are steered."""
        self._switching: dict[ServedPort, Path] = {}
        """Those for which probes have chosen another path, with the one before."""
        self._giving_up: set[ServedPort] = set()
        """Those whose listeners close once nothing is steered to them, for others without any."""
        self._incomplete: dict[PortKey, ServedPort] = {}
        """Those with listeners or node ports that aren't available, but for shortages."""
        self.shortages = Shortages()
        """Those that wait for a listener."""
        self._unsteered: Mapping[Frontend, str] = {}
        self._detours: dict[ServiceKey, Mapping[At, SocketAddress]] = {}
        self.faults_of: Callable[[ServiceKey], Faults] = lambda _service: {}
        """Returns the faults on purpose of a Service, for the view."""
        self.auto_paths = AutoPaths()

    def __iter__(self) -> Iterator[ServedPort]:
        return iter(self._served.values())

    def of_group(self, group: Group) -> ServedPort | None:
        """Return the Service port of a group, if it is served."""
        return self._by_group.get(group)

    def open(self, plan: PortPlan, preferred: Mapping[Frontend, int]) -> None:
        """Begin to serve a Service port.

        Args:
            preferred: Proxy ports that rules of an earlier run point to, as
                :meth:`.Steering.start` returns them.
        """
        # It is open already if a bug interrupted a round, which is then repeated.
        self.retire(plan.key)
        served = ServedPort(plan, self._plane.open_group(str(plan.key)))
        self._served[plan.key] = self._by_group[served.group] = served
        self._holds.claim(node_ports(f for f in plan.frontends if f in preferred))
        self._follow(served, (), preferred)

    def update(self, plan: PortPlan) -> None:
        """Follow a change of a Service port that is served."""
        served = self._served[plan.key]
        before, served.plan = served.plan.frontends, plan
        self._follow(served, before, {})

    def _follow(
        self, served: ServedPort, before: Iterable[Frontend], preferred: Mapping[Frontend, int]
    ) -> None:
        """Have the rules, the path and the listeners of a Service port follow its plan."""
        self._touch(served, before, served.plan.frontends)
        self._choose_path(served, self.auto_paths.follow(served.plan))
        self._serve(served, preferred)

    def detour(self, service: ServiceKey, detours: Mapping[At, SocketAddress]) -> None:
        """Dial endpoints of a Service at other addresses; in force on return.

        Args:
            detours: By endpoint; those of an earlier call that are missing end.
        """
        self._detours[service] = detours
        if not detours:
            del self._detours[service]
        for served in self._served.values():
            if served.plan.key.name.service == service:
                self._touch(served, served.plan.frontends, served.plan.frontends)
                self._serve(served, {})

    def retire(self, key: PortKey) -> None:
        """Have :meth:`close_retired` close a Service port; idempotent."""
        served = self._served.pop(key, None)
        if served is None:
            return
        self._touch(served, served.plan.frontends, ())
        self._by_group.pop(served.group, None)
        self._incomplete.pop(key, None)
        self.shortages.lacks_nothing(key)
        self.shortages.shares.hold(key, 0)
        self.shortages.end(key, served_at=None)
        self.listeners.change(served)
        served.is_retired, served.is_listening_again = True, False
        self._retired.append(served)
        self.auto_paths.forget(key)

    def close_retired(self) -> None:
        """Close the listeners that no Service port has taken over; open connections go on.

        Call it once nothing is steered to them.
        """
        self._holds.release_unused()
        retired, self._retired = self._retired, []
        closed = self._plane.close_unwanted()
        for served in retired:
            closed += self._plane.close_group(served.group)
        self._addresses.give(closed)
        self._giving_up.clear()

    def switch_paths(self) -> None:
        """Choose paths by what probes have shown."""
        for key, wanted in self.auto_paths.take().items():
            served = self._served[key]
            if wanted.path is not served.chosen.path:
                self._touch(served, served.plan.frontends, served.plan.frontends)
                self._switching[served] = served.path.now
            self._choose_path(served, wanted)

    def retry(self) -> Iterator[bool]:
        """Retry what couldn't be opened; yields after each step whether something has changed.

        The first Service port that still lacks a common resource is the last that is tried.
        """
        self._addresses.start_over()
        for served in list(self._incomplete.values()):
            if not served.is_retired:
                yield self._serve_again(served)
        shares = self.shortages.shares
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
        """Open what a Service port lacks, or close what it gives up; returns whether it changed."""
        held = set(served.held_by_others)
        self._touch(served, served.plan.frontends, served.plan.frontends)
        self._serve(served, {}, is_turn=is_turn)
        return served.is_listening_again or served.held_by_others != held

    def targets(self) -> dict[Frontend, Target]:
        """Return where each frontend is to be steered."""
        return {
            frontend: target
            for served in self._served.values()
            for frontend, target in self._targets_of(served).items()
        }

    def steering_change(self) -> SteeringChange:
        """Return how targets differ from where frontends are steered."""
        changed: dict[Frontend, Target] = {}
        gone: set[Frontend] = set()
        touched = tuple([(served, self._targets_of(served)) for served in self._touched])
        for served, targets in touched:
            gone.update(served.steered.keys() - targets.keys())
            changed.update({f: t for f, t in targets.items() if served.steered.get(f) != t})
        return SteeringChange(changed, frozenset(gone - changed.keys()), touched)

    def mark_steered(self, change: SteeringChange) -> list[ServedPort]:
        """Note that a change is in force, before anything else is changed.

        Returns those that take another path now because of probes.
        """
        for served, targets in change.targets:
            served.steered = targets
            served.path = served.path.follow(served.chosen, time.time())
            if served.is_listening_again:
                self._end_problem(served)
        self._touched.clear()
        switching, self._switching = self._switching, {}
        return [served for served, before in switching.items() if served.path.now is not before]

    def note_unsteered(self, unsteered: Mapping[Frontend, str]) -> None:
        """Follow :attr:`.Steering.unsteered`; call it after each change and repair."""
        before, self._unsteered = self._unsteered, dict(unsteered)
        differing = {frontend for frontend, _ in before.items() ^ unsteered.items()}
        if not differing:
            return
        for served in self._served.values():
            if not differing.isdisjoint(served.plan.frontends):
                served.unsteered = self._unsteered_of(served.plan)
        # One line for all: if a family is switched off there may be thousands.
        news = sorted(unsteered.keys() - before.keys(), key=str)
        if news:
            extra = {"frontends": len(news), "cause": unsteered[news[0]]}
            _log.warning("frontends cannot be steered: %(cause)s", extra=extra)
        elif before and not unsteered:
            _log.info("all frontends are steered again")

    def _unsteered_of(self, plan: PortPlan) -> Mapping[Frontend, str]:
        return {f: self._unsteered[f] for f in plan.frontends if f in self._unsteered}

    def close(self) -> None:
        """Close all listeners."""
        for key in list(self._served):
            self.retire(key)
        self.auto_paths.close()
        self.close_retired()
        self._holds.close()

    def _serve(
        self, served: ServedPort, preferred: Mapping[Frontend, int], *, is_turn: bool = False
    ) -> None:
        """Have the plane serve a Service port, and note what isn't available.

        Args:
            is_turn: It may open listeners although others wait for some.
        """
        served.unsteered = self._unsteered_of(served.plan)
        error = self._take_node_ports(served)
        plan, before = served.plan, set(served.listeners.values())
        # No other one gets a preferred port.
        is_turn |= not self.shortages.shares.others_wait(plan.key)
        is_turn |= any(f in preferred for f in plan.frontends)
        is_left_to_others = not before and served.held_by_others.issuperset(plan.frontends)
        gives_up = served in self._giving_up
        has_none = is_left_to_others or gives_up
        wanted = {} if has_none else self._addresses.wanted(plan, preferred, may_open=is_turn)
        answer = self._plane.serve(served.group, self._serving(plan), wanted)
        served.listeners = self.listeners.change(served, self._addresses.by_frontend(plan, answer))
        now = set(served.listeners.values())
        self._addresses.take(now - before)
        self.shortages.shares.hold(plan.key, len(now))
        for key, why in answer.errors.items():
            # A listener that is open, but refuses, has an address.
            is_open = why is not None and key in answer.listeners
            error = why if is_open else self._addresses.explain(plan, key, why)
        waits = gives_up or (not is_turn and None in answer.errors.values())
        self._note(served, error, waits=waits)

    def _serving(self, plan: PortPlan) -> Serving:
        """Return what workers get: nearly always the plan's, as it is."""
        detours = self._detours.get(plan.key.name.service)
        if not detours:
            return plan.serving
        return plan.serving.detoured(
            tuple((at.endpoint, to) for at, to in detours.items() if at.protocol is plan.protocol)
        )

    def _holder_of(self, protocol: Protocol, family: IPFamily, ports: Collection[int]) -> str:
        return self._holds.holder(protocol, family, ports, now=self._clock())

    def _take_node_ports(self, served: ServedPort) -> ListenError | None:
        """Hold the node ports from which packets are steered; return why one isn't available."""
        error: ListenError | None = None
        served.held_by_others.clear()
        if self._bind is not Bind.PROXY_PORT:
            return None
        for frontend in served.plan.frontends:
            if frontend.kind is FrontendKind.NODE_PORT:
                port = NodePort(frontend.protocol, frontend.family, frontend.port)
                why = self._holds.take(port, now=self._clock())
                if why:
                    error = ListenError(why, hint=HELD_HINT)
                    served.held_by_others.add(frontend)
        return error

    def _touch(
        self, served: ServedPort, before: Iterable[Frontend], now: Iterable[Frontend]
    ) -> None:
        """Note that the frontends or targets of a Service port may have changed."""
        self._touched[served] = None
        if self._bind is Bind.PROXY_PORT and before is not now:
            self._holds.count_uses(node_ports(before), node_ports(now))

    def _targets_of(self, served: ServedPort) -> Mapping[Frontend, Target]:
        if served.is_retired:
            return _NOTHING
        targets: dict[Frontend, Target] = {}
        for frontend in served.plan.frontends:
            if frontend not in served.held_by_others:
                listener = served.listeners.get(frontend)
                serves = listener is not None and listener.is_serving
                targets[frontend] = listener.address.port if listener and serves else REFUSE
        if served.was_in_kernel:
            return forward(served.plan, targets, is_in_kernel=served.chosen.path is Path.KERNEL)
        return targets

    def _choose_path(self, served: ServedPort, wanted: PathChoice) -> None:
        """Choose a path. The listeners stay: what the kernel can't place uses them."""
        served.chosen = wanted
        served.was_in_kernel |= wanted.path is Path.KERNEL
        if wanted.path is served.path.now:
            served.path = served.path.follow(wanted, time.time())

    def _end_problem(self, served: ServedPort) -> None:
        """Forget and log the end of a problem; clients are steered to the listeners now."""
        self.shortages.end(served.plan.key, served_at=self._clock())
        served.not_listening, served.is_listening_again = None, False
        self._incomplete.pop(served.plan.key, None)

    def _note(self, served: ServedPort, error: ListenError | None, *, waits: bool) -> None:
        """Remember the problem of a Service port, and log it if it is new.

        Args:
            waits: It has no listener because it waits for its turn.
        """
        key = served.plan.key
        # The problem ends with :meth:`mark_steered`: until then clients are refused.
        served.is_listening_again = error is None and not waits and served.not_listening is not None
        if waits or (error is not None and is_shortage(error)):
            lacks = None if waits else error
            served.not_listening = self.shortages.note(key, lacks, now=self._clock())
            self._incomplete.pop(key, None)
            return
        self.shortages.lacks_nothing(key)
        if error is not None:
            is_new = str(error) != str(served.not_listening or "")
            if is_new and self.shortages.lines.take(self._clock()):
                extra = {"service": served.group.label, "cause": str(error)}
                _log.warning("%(service)s: cannot serve a Service port: %(cause)s", extra=extra)
            # A copy: the traceback of an error that was raised keeps what its frames refer to.
            served.not_listening = ListenError(error.message, hint=error.hint)
        if served.not_listening is not None:
            self._incomplete[key] = served
