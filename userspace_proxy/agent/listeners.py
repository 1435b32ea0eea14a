"""The listeners that are open, and how they follow the plan.

Rule 1: what can't be opened is a problem of that Service port alone: it is said, the
frontend refuses, and it is tried again.
Rule 2: nothing here awaits: a round of changes is one step of the loop, so traffic
sees the state before or after it.
Rule 3: who takes over a frontend gets its listener with the clients in its queue: nobody is
refused while a Service port's policy, or the Service that has an address, changes.
Rule 4: what a round costs depends on the Service ports that it touches, not on those there are.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ..dataplane import Serving
from ..errors import ListenError
from ..model import Frontend, FrontendKind, IPFamily, Protocol
from ..plan import PortKey, PortPlan
from ..plane import Group, Listener, Plane, PortPool
from ..steering import REFUSE, Bind, Target
from .listen_addresses import HELD_HINT, ListenAddresses
from .node_ports import NodePort, NodePortHolds
from .shortages import Shortages, is_shortage

_log = logging.getLogger("userspace_proxy.agent")

_NOTHING: Mapping[Frontend, Target] = {}


@dataclass(slots=True, eq=False)
class ServedPort:
    """One Service port that is served: its group, its listeners, its problem."""

    plan: PortPlan
    group: Group
    listeners: dict[Frontend, Listener] = field(default_factory=dict)
    """By frontend; with proxy ports they all share one listener."""
    not_listening: ListenError | None = None
    """Why a listener or a node port can't be had; None where all are."""
    unsteered: Mapping[Frontend, str] = field(default_factory=dict)
    """Frontends that the steering can't bring here, with the causes."""
    held_by_others: set[Frontend] = field(default_factory=set)
    """Node ports that a daemon of the node has: they are left to it."""
    steered: Mapping[Frontend, Target] = field(default_factory=lambda: _NOTHING)
    """Where its frontends are steered, as far as the steering has been told."""
    has_left: bool = False

    @property
    def problem(self) -> str:
        """Why it isn't served, or not everywhere; empty where all is well."""
        return str(self.not_listening or "") or next(iter(self.unsteered.values()), "")

    @property
    def way_out(self) -> str:
        """What to do about the problem, which ends with it in brackets; empty where it doesn't."""
        return self.not_listening.hint if self.not_listening is not None else ""


class SteeringChange(NamedTuple):
    """What a steering is to be told besides what it was told before."""

    changed: Mapping[Frontend, Target]
    gone: frozenset[Frontend]
    told: tuple[tuple[ServedPort, Mapping[Frontend, Target]], ...]
    """What each Service port that was touched is steered to with it."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


class Listeners:
    """Opens, updates and closes the listeners of one proxy.

    Args:
        plane: The data plane.
        bind: Where the steering wants listeners.
        pool: Proxy port numbers.
        transparent: Listeners that something is steered to are transparent sockets.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        plane: Plane,
        bind: Bind,
        pool: PortPool,
        *,
        transparent: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._bind = bind
        self._clock = clock
        self._holds = NodePortHolds()
        self._addresses = ListenAddresses(
            bind, pool, transparent=transparent, holder=self._holder_of
        )
        self._served: dict[PortKey, ServedPort] = {}
        self._leaving: list[ServedPort] = []
        self._touched: dict[ServedPort, None] = {}
        """Those that may be steered elsewhere than the steering was told."""
        self._troubled: dict[PortKey, ServedPort] = {}
        """Those whose listeners or node ports can't all be had."""
        self._shortages = Shortages()
        self._unsteered: Mapping[Frontend, str] = {}
        self._node_port_uses: Counter[NodePort] = Counter()
        self._given_up: set[NodePort] = set()

    def __iter__(self) -> Iterator[ServedPort]:
        return iter(self._served.values())

    def spare(self, ports: Iterable[int]) -> None:
        """Leave these proxy ports to those who prefer them, and no longer those of before."""
        self._addresses.spare(ports)

    def open(self, plan: PortPlan, preferred: Mapping[Frontend, int]) -> None:
        """Begin to serve a Service port.

        Args:
            plan: What to serve.
            preferred: Proxy ports that rules of an earlier run still name, as
                :meth:`.Steering.start` returns them.
        """
        old = self._served.pop(plan.key, None)
        if old is not None:
            self._let_go(old)
        served = ServedPort(plan, self._plane.open_group(str(plan.key)))
        self._served[plan.key] = served
        self._touch(served, (), plan.frontends)
        for port in _node_ports(f for f in plan.frontends if f in preferred):
            self._holds.claim(*port)
        self._serve(served, preferred)

    def update(self, plan: PortPlan) -> None:
        """Give a served Service port its new frontends, endpoints and affinity."""
        served = self._served[plan.key]
        self._touch(served, served.plan.frontends, plan.frontends)
        served.plan = plan
        self._serve(served, {})

    def leave(self, key: PortKey) -> None:
        """Note that a Service port is to be closed, once nothing is steered to it."""
        served = self._served.pop(key, None)
        if served is not None:
            self._let_go(served)

    def close_leaving(self) -> None:
        """Close what was left and not taken over; open connections go on."""
        self._give_node_ports()
        leaving, self._leaving = self._leaving, []
        closed = self._plane.close_unwanted()
        for served in leaving:
            closed += self._plane.close_group(served.group)
        self._addresses.give(closed)

    def retry(self) -> bool:
        """Try again what couldn't be opened; True if something has changed."""
        self._addresses.start_over()
        has_changed = False
        for served in list(self._troubled.values()):
            held = set(served.held_by_others)
            self.update(served.plan)
            has_changed = has_changed or not served.not_listening or served.held_by_others != held
        return has_changed

    def targets(self) -> dict[Frontend, Target]:
        """Return where each frontend is to be steered."""
        return {
            frontend: target
            for served in self._served.values()
            for frontend, target in self._targets_of(served).items()
        }

    def steering_change(self) -> SteeringChange:
        """Return what is to be steered otherwise than the steering was told."""
        changed: dict[Frontend, Target] = {}
        gone: set[Frontend] = set()
        told = tuple([(served, self._targets_of(served)) for served in self._touched])
        for served, targets in told:
            gone.update(served.steered.keys() - targets.keys())
            changed.update({f: t for f, t in targets.items() if served.steered.get(f) != t})
        return SteeringChange(changed, frozenset(gone - changed.keys()), told)

    def has_told(self, change: SteeringChange) -> None:
        """Note that the steering knows a change; call it before anything else is changed."""
        for served, targets in change.told:
            served.steered = targets
        self._touched.clear()

    def note_unsteered(self, unsteered: Mapping[Frontend, str]) -> None:
        """Take the frontends that the steering can't bring here, and the causes.

        Call it whenever the steering has changed or repaired something.
        """
        before, self._unsteered = self._unsteered, dict(unsteered)
        differing = {
            f for f in before.keys() | unsteered.keys() if before.get(f) != unsteered.get(f)
        }
        if not differing:
            return
        for served in self._served.values():
            if not differing.isdisjoint(served.plan.frontends):
                served.unsteered = self._unsteered_of(served.plan)
        # One line for all: where a family is switched off there may be thousands.
        news = sorted(unsteered.keys() - before.keys(), key=str)
        if news:
            extra = {"frontends": len(news), "cause": unsteered[news[0]]}
            _log.warning("frontends cannot be steered", extra=extra)
        elif before and not unsteered:
            _log.info("all frontends are steered again")

    def _unsteered_of(self, plan: PortPlan) -> Mapping[Frontend, str]:
        if not self._unsteered:
            return {}
        return {f: self._unsteered[f] for f in plan.frontends if f in self._unsteered}

    def close(self) -> None:
        """Close all of them."""
        for served in self._served.values():
            self._let_go(served)
        self._served.clear()
        self.close_leaving()
        self._holds.close()

    def _serve(self, served: ServedPort, preferred: Mapping[Frontend, int]) -> None:
        """Have the plane serve a Service port, and note what couldn't be had."""
        served.unsteered = self._unsteered_of(served.plan)
        error = self._take_node_ports(served)
        plan, before = served.plan, set(served.listeners.values())
        is_left_to_others = not before and served.held_by_others.issuperset(plan.frontends)
        wanted = {} if is_left_to_others else self._addresses.wanted(plan, preferred)
        answer = self._plane.serve(served.group, _serving(plan), wanted)
        served.listeners = self._addresses.by_frontend(plan, answer)
        self._addresses.take(set(served.listeners.values()) - before)
        for key, why in answer.errors.items():
            # One that is open, but refuses, has its own address.
            is_open = why is not None and key in answer.listeners
            error = why if is_open else self._addresses.explain(plan, key, why)
        self._note(served, error)

    def _holder_of(self, protocol: Protocol, family: IPFamily, ports: Collection[int]) -> str:
        return self._holds.holder(protocol, family, ports, now=self._clock())

    def _take_node_ports(self, served: ServedPort) -> ListenError | None:
        """Take the node ports that rules lead elsewhere; returns why one can't be had."""
        error: ListenError | None = None
        served.held_by_others.clear()
        if self._bind is not Bind.PROXY_PORT:
            return None
        for frontend in served.plan.frontends:
            if frontend.kind is FrontendKind.NODE_PORT:
                why = self._holds.take(
                    frontend.protocol, frontend.family, frontend.port, now=self._clock()
                )
                if why:
                    error = ListenError(why, hint=HELD_HINT)
                    served.held_by_others.add(frontend)
        return error

    def _give_node_ports(self) -> None:
        for port in self._given_up:
            if port not in self._node_port_uses:
                self._holds.give(*port)
        self._given_up.clear()

    def _touch(
        self, served: ServedPort, before: Iterable[Frontend], now: Iterable[Frontend]
    ) -> None:
        """Note that a Service port has other frontends, or that its listeners may change."""
        self._touched[served] = None
        if self._bind is not Bind.PROXY_PORT or before is now:
            return
        had, has = _node_ports(before), _node_ports(now)
        self._node_port_uses.update(has - had)
        for port in had - has:
            self._given_up.add(port)
            self._node_port_uses[port] -= 1
            if not self._node_port_uses[port]:
                del self._node_port_uses[port]

    def _let_go(self, served: ServedPort) -> None:
        """Have a Service port closed, once nothing is steered to it."""
        self._touch(served, served.plan.frontends, ())
        self._troubled.pop(served.plan.key, None)
        self._shortages.end(served.plan.key, is_served=False)
        served.has_left = True
        self._leaving.append(served)

    def _targets_of(self, served: ServedPort) -> Mapping[Frontend, Target]:
        if served.has_left:
            return _NOTHING
        targets: dict[Frontend, Target] = {}
        for frontend in served.plan.frontends:
            if frontend not in served.held_by_others:
                listener = served.listeners.get(frontend)
                serves = listener is not None and listener.is_serving
                targets[frontend] = listener.address.port if listener and serves else REFUSE
        return targets

    def _note(self, served: ServedPort, error: ListenError | None) -> None:
        """Remember what is wrong with a Service port, if anything; news are logged."""
        before = served.not_listening
        if error is None:
            was_short = self._shortages.end(served.plan.key, is_served=True)
            if before is not None and not was_short:
                _log.info("Service port is served again", extra={"service": served.group.label})
            served.not_listening = None
            self._troubled.pop(served.plan.key, None)
            return
        if is_shortage(error):
            self._shortages.note(served.plan.key, error, now=self._clock())
        elif before is None or str(error) != str(before):
            _log.warning(
                "cannot serve a Service port",
                extra={"service": served.group.label, "cause": str(error)},
            )
        # A copy: the traceback of the one that was raised keeps all that its frames refer to.
        served.not_listening = ListenError(error.message, hint=error.hint)
        self._troubled[served.plan.key] = served


def _node_ports(frontends: Iterable[Frontend]) -> set[NodePort]:
    return {
        NodePort(f.protocol, f.family, f.port)
        for f in frontends
        if f.kind is FrontendKind.NODE_PORT
    }


def _serving(plan: PortPlan) -> Serving:
    return Serving(
        endpoints=plan.usable,
        affinity_timeout_s=plan.affinity_timeout_s,
        outside=plan.outside,
        inside=plan.inside,
        admits=plan.admits,
        balance=plan.balance,
        keeps_clients=plan.keeps_clients,
    )
