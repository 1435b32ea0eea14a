"""Represents served Service ports, and computes the steering changes that they require.

listeners, plan, path ─▶ ServedPort.targets ──differ from ServedPort.steered──▶ Steered.change
                                                                  applied ──▶ Steered.mark
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ...causes.cause import Cause
from ...clocks import Clocks
from ...diagnosis import paths
from ...diagnosis.paths import PathView
from ...errors import ListenError
from ...facts import PortFacts
from ...log_fields import FieldLogger
from ...model import DataPath, Frontend, PortKey, Taken
from ...plan import PortPlan
from ...plane import Group, Listener
from ...policy import DEFAULT_PATH, PathDecision
from ...steering import REFUSE, EndpointChoice, Target
from .kernel_path import choices_of, kernel_targets

_log = FieldLogger("userspace_proxy.agent")

_NOTHING: Mapping[Frontend, Target] = {}
NOT_HELD: frozenset[Frontend] = frozenset()
_ALL_STEERED: Mapping[Frontend, str | Taken] = {}


@dataclass(slots=True, eq=False)
class ServedPort:
    """A served Service port, with its group, listeners and problem."""

    plan: PortPlan
    group: Group
    listeners: dict[Frontend, Listener] = field(default_factory=dict)
    """Listeners by frontend; with proxy ports, all frontends share one listener."""
    not_listening: ListenError | None = None
    """Why a listener or node port isn't available; None once all are available and steered to."""
    is_listening_again: bool = False
    """Whether all listeners are available again, but rules don't steer to them yet."""
    unsteered: Mapping[Frontend, str | Taken] = field(default_factory=lambda: _ALL_STEERED)
    """The frontends that can't be steered, with the causes."""
    perhaps_taken: Taken | None = None
    """The chain of another program that may take a frontend's packets; None if there is none."""
    held_by_others: frozenset[Frontend] = NOT_HELD
    """The node ports that a daemon on the node uses, and keeps."""
    steered: Mapping[Frontend, Target] = field(default_factory=lambda: _NOTHING)
    """The targets to which the rules steer the port's frontends."""
    shown: tuple[PortFacts, object] | None = None
    """The last view of this port, and the values other than the plan from which it was made."""
    other_ports: Cause | None = None
    """The finding that clients dial ports of the ClusterIP that no Service has; None if none do."""
    wake_problem: str = ""
    """Why the workload for which clients wait wasn't scaled; empty without such a failure."""
    path: PathView = paths.DEFAULT
    """The current path of new connections."""
    chosen: PathDecision = DEFAULT_PATH
    """The path of new connections after the next change of the rules."""
    was_in_kernel: bool = False
    """Whether the kernel may still forward UDP flows straight to endpoints."""
    chosen_from: tuple[PortPlan, bool, tuple[EndpointChoice, ...]] | None = None
    """The plan of the last choices, whether they are for the kernel path, and the choices."""
    is_retired: bool = False
    """Whether the port is to be closed once nothing is steered to it."""

    @property
    def is_unsteered(self) -> bool:
        """Whether the port's problem is that rules don't steer clients to its listeners."""
        return self.not_listening is None and bool(self.unsteered)

    @property
    def problem(self) -> str:
        """Why the port isn't served on all frontends; empty if it is."""
        if self.not_listening is not None:
            return self.not_listening.message
        first = self._first_unsteered
        return first.what if isinstance(first, Taken) else first

    @property
    def taken_by(self) -> str:
        """The chain of another program that causes the problem; empty if the cause is different."""
        first = self._first_unsteered
        return first.chain if isinstance(first, Taken) else ""

    @property
    def hint(self) -> str:
        """A remedy for the problem; empty if none is known."""
        if self.not_listening is not None:
            return self.not_listening.hint
        first = self._first_unsteered
        return first.hint if isinstance(first, Taken) else ""

    @property
    def _first_unsteered(self) -> str | Taken:
        return next(iter(self.unsteered.values()), "") if self.is_unsteered else ""

    def targets(self) -> Mapping[Frontend, Target]:
        if self.is_retired:
            return _NOTHING
        targets: dict[Frontend, Target] = {}
        for frontend in self.plan.frontends:
            if frontend not in self.held_by_others:
                listener = self.listeners.get(frontend)
                serves = listener is not None and listener.is_serving
                if frontend.is_udp_range:
                    # A listener doesn't see which port of a range was dialled, so only the kernel
                    # can serve it.
                    serves = serves and self.chosen.path is DataPath.KERNEL
                targets[frontend] = listener.address.port if listener and serves else REFUSE
        if self.was_in_kernel:
            is_in_kernel = self.chosen.path is DataPath.KERNEL
            return kernel_targets(self.plan, targets, self.choices(), is_in_kernel=is_in_kernel)
        return targets

    def choices(self) -> tuple[EndpointChoice, ...]:
        """Return the kernel's choices, cached per plan because filling slots may take 12 ms."""
        of = self.plan, self.chosen.path is DataPath.KERNEL
        if self.chosen_from is None or any(map(operator.is_not, of, self.chosen_from)):
            is_coarse = self.plan.has_coarse_weights
            choices = choices_of(self.plan.serving, is_coarse=is_coarse, is_in_kernel=of[1])
            self.chosen_from = *of, tuple(choices)
        return self.chosen_from[2]

    def choose_path(self, wanted: PathDecision) -> None:
        """Choose the path that the next change of the rules applies; listeners stay open."""
        self.chosen = wanted
        self.was_in_kernel |= wanted.path is DataPath.KERNEL
        if wanted.path is self.path.now:
            self.path = self.path.follow(wanted, Clocks.monotonic())


class SteeringChange(NamedTuple):
    """The required change of the steering rules."""

    changed: Mapping[Frontend, Target]
    gone: frozenset[Frontend]
    targets: tuple[tuple[ServedPort, Mapping[Frontend, Target]], ...]
    """All targets of each Service port whose targets may differ."""

    def __bool__(self) -> bool:
        return bool(self.changed or self.gone)


class Steered:
    """The targets of one proxy's frontends, and the required changes.

    Args:
        served: All served ports; the caller updates the mapping.
        end_problem: Called with a Service port once clients are steered to its listeners again.
    """

    def __init__(
        self,
        served: Mapping[PortKey, ServedPort],
        end_problem: Callable[[ServedPort], None],
    ) -> None:
        self._served = served
        self._end_problem = end_problem
        self._affected: dict[ServedPort, None] = {}
        """The ports whose wanted targets may differ from the targets in the rules."""
        self._switching: dict[ServedPort, DataPath] = {}
        """The ports for which probes have chosen another path, with the previous path."""
        self._unsteered: Mapping[Frontend, str | Taken] = {}

    def touch(self, served: ServedPort) -> None:
        """Mark the frontends or targets of a Service port as possibly changed."""
        self._affected[served] = None

    def switch(self, served: ServedPort) -> None:
        """Record that probes have chosen another path for a Service port."""
        self.touch(served)
        self._switching[served] = served.path.now

    def targets(self) -> dict[Frontend, Target]:
        return {
            frontend: target
            for served in self._served.values()
            for frontend, target in served.targets().items()
        }

    def change(self) -> SteeringChange:
        """Return how the wanted targets differ from the targets in the rules."""
        changed: dict[Frontend, Target] = {}
        gone: set[Frontend] = set()
        affected = tuple([(served, served.targets()) for served in self._affected])
        for served, targets in affected:
            gone.update(served.steered.keys() - targets.keys())
            changed.update({f: t for f, t in targets.items() if served.steered.get(f) != t})
        return SteeringChange(changed, frozenset(gone - changed.keys()), affected)

    def mark(self, change: SteeringChange) -> list[ServedPort]:
        """Record a change just applied; return the ports that probes have moved to another path."""
        for served, targets in change.targets:
            served.steered = targets
            served.path = served.path.follow(served.chosen, Clocks.monotonic())
            if served.is_listening_again:
                self._end_problem(served)
        self._affected.clear()
        switching, self._switching = self._switching, {}
        return [served for served, before in switching.items() if served.path.now is not before]

    def note_unsteered(self, unsteered: Mapping[Frontend, str | Taken]) -> None:
        """Record and log the frontends that can't be steered, after each change and repair."""
        before, self._unsteered = self._unsteered, dict(unsteered)
        differing = {frontend for frontend, _ in before.items() ^ unsteered.items()}
        if not differing:
            return
        for served in self._served.values():
            if not differing.isdisjoint(served.plan.frontends):
                self.show_unsteered(served)
        before, unsteered = _certain(before), _certain(unsteered)
        # Log one line for all frontends, because a disabled family may have thousands.
        news = sorted({f for f, _ in unsteered.items() - before.items()}, key=str)
        if news:
            first, cause = str(news[0]), str(unsteered[news[0]])
            extra = {"frontend": first, "frontends": len(news), "cause": cause}
            _log.warning("frontend %(frontend)s cannot be steered: %(cause)s", extra=extra)
        if before and not unsteered:
            _log.info("all frontends are steered again")

    def show_unsteered(self, served: ServedPort) -> None:
        """Update a Service port's record of the frontends that can't be steered."""
        causes, frontends = self._unsteered, served.plan.frontends
        found = {f: causes[f] for f in frontends if f in causes}
        served.unsteered = _certain(found) or _ALL_STEERED
        doubts = (one for f, one in found.items() if f not in served.unsteered)
        served.perhaps_taken = next((one for one in doubts if isinstance(one, Taken)), None)


def _certain(unsteered: Mapping[Frontend, str | Taken]) -> dict[Frontend, str | Taken]:
    """Return the frontends that certainly aren't steered to this proxy."""
    return {f: one for f, one in unsteered.items() if isinstance(one, str) or one.is_certain}
