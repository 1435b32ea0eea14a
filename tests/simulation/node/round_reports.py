"""What an agent says of its rounds at each moment, also while they fail and changes keep arriving.

    a snapshot arrives ─▶ a round begins ─▶ the kernel takes or refuses it ─▶ all of it is in force
           └──── since then a change waits, whatever arrives later, and whatever fails ────┘

Rule 1: a change waits since the first one arrived that isn't in force. What waits for its turn, or
has changed at the node, counts from its first round on.
Rule 2: from a minute on that is late: no address of the node that load balancers ask says 200.
Rule 3: each refusal, repair and change is counted once, when it happens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from userspace_proxy.agent.rounds.sync import SyncLoop
from userspace_proxy.agent.watchers.last_state import LastState
from userspace_proxy.cluster import Snapshot
from userspace_proxy.diagnosis.problems import problems_of_node
from userspace_proxy.facts import StatusFacts
from userspace_proxy.status.health import answer_healthz

from ..control.machine import Process
from .last_states import FILE
from .seam import answer_of
from .steering import CHANGE, CLEAN_UP, REPAIR

if TYPE_CHECKING:
    from .agents import AgentRun
    from .world import World

WAITING, COUNTED, PENDING, LATE, SERVED_STATE = (
    "since when a change waits",
    "counted rounds and repairs",
    "changes that are pending",
    "answers once a change is late",
    "age of a last state that is served",
)
ORACLES = (WAITING, COUNTED, PENDING, LATE, SERVED_STATE)

# Source: kube-proxy's healthzTimeout, docs/operate.md.
_LATE_S = 60.0
_MINUTE_S = 60.0
# Of sums of Unix times.
_NEAR_S = 1e-3

_PUBLISH = SyncLoop.publish
_ANSWERED = LastState.publish


class _Change(NamedTuple):
    """What has arrived in one snapshot, and isn't in force."""

    at: float
    """Unix time."""
    services: int
    slices: int


class Rounds:
    """What has happened to the rounds of one agent."""

    def __init__(self) -> None:
        self.latest: Snapshot | None = None
        self.waits: list[_Change] = []
        self.due_at = 0.0
        """Unix time of the first round of what had waited for its turn, or has changed at the node,
        while nothing else waits."""
        self.last_queued = self.last_done = 0.0
        self.done = self.failures = self.partial_failures = self.repairs = 0
        self.repaired_at: list[float] = []
        self.is_refused = self.has_drifted = False
        self.services = self.slices = 0
        self.state_read_at = self.state_served_at = 0.0
        self.has_source = False
        self._is_in_round = False
        self._of_round = 0
        """So many of the changes were there when the present round began."""

    @property
    def waiting_since(self) -> float:
        """Unix time at which the oldest change arrived that isn't in force; 0: none waits."""
        return self.due_at or (self.waits[0].at if self.waits else 0.0)

    def arrived(self, snapshot: Snapshot, unix: float) -> None:
        """Note a snapshot."""
        if snapshot is self.latest:
            return
        change = _Change(unix, *_count(self.latest, snapshot))
        self.services += change.services
        self.slices += change.slices
        self.waits.append(change)
        self.latest, self.last_queued = snapshot, unix

    def began(self, unix: float) -> None:
        """Note that a round begins."""
        self._is_in_round, self._of_round = True, len(self.waits)
        if not self.waits:
            self.due_at = self.due_at or unix

    def ended(self, unix: float) -> None:
        """Note that all of the round is in force."""
        if not self._is_in_round:
            return
        del self.waits[: self._of_round]
        self.due_at, self._is_in_round = 0.0, False
        self.last_done = unix
        self.done += 1

    def wrote(self, call: str, is_taken: bool, repaired: int, now: float) -> None:
        """Note a write, which the kernel has taken or refused."""
        if not is_taken:
            self.failures += 1
            self.partial_failures += call == CHANGE
            self.is_refused = True
            self.has_drifted |= call == REPAIR
        elif call != CHANGE:
            # A change alone doesn't write what has drifted.
            self.is_refused = self.has_drifted = False
        if repaired:
            self.repairs += repaired
            self.repaired_at.append(now)


class RoundReports:
    """The oracles of one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._of: dict[Process | None, Rounds] = {}
        world.table.wrote = self._wrote
        world.table.round_ended = self._round_ended

    def of(self, process: Process | None) -> Rounds:
        """Return what has happened to the rounds of a process."""
        return self._of.setdefault(process, Rounds())

    # -- what happens ------------------------------------------------------------------------------

    def publishing(self) -> Callable[[SyncLoop, Snapshot], None]:
        """Return a method of SyncLoop that has what arrives noted."""

        def publish(sync: SyncLoop, snapshot: Snapshot) -> None:
            rounds = self.of(self._world.machine.current)
            if rounds.latest is None and not rounds.has_source:
                rounds.state_served_at = rounds.state_read_at
            rounds.arrived(snapshot, self._world.unix())
            _PUBLISH(sync, snapshot)

        return publish

    def answering(self) -> Callable[[LastState, Snapshot], None]:
        """Return a method of LastState that has noted that the source has answered."""

        def publish(state: LastState, snapshot: Snapshot) -> None:
            rounds = self.of(self._world.machine.current)
            rounds.has_source, rounds.state_served_at = True, 0.0
            _ANSWERED(state, snapshot)

        return publish

    def began(self) -> None:
        """Note that a round begins."""
        self.of(self._world.machine.current).began(self._world.unix())

    def was_read(self, name: str) -> None:
        """Note that an agent reads its last state."""
        file = self._world.disk.files.get(name)
        if name == FILE and file is not None:
            self.of(self._world.machine.current).state_read_at = file.mtime

    def _wrote(self, process: Process, call: str, is_taken: bool, repaired: int) -> None:
        if not is_taken:
            self._world.health.look_soon()
        if call != CLEAN_UP:
            self.of(process).wrote(call, is_taken, repaired, self._world.timeline.now)

    def _round_ended(self, process: Process) -> None:
        self.of(process).ended(self._world.unix())

    # -- what is said of it ------------------------------------------------------------------------

    def judge(self, run: AgentRun, facts: StatusFacts) -> None:
        """Judge what an agent that runs says of its rounds."""
        world, rounds, sync = self._world, self.of(run.process), facts.sync
        check, since = world.judgements.check, self.of(run.process).waiting_since
        what = f"a change waits since {sync.waiting_since:.3f}, and should since {since:.3f}"
        check(WAITING, abs(sync.waiting_since - since) < _NEAR_S, what)
        said, wanted = dict(_said(facts)), dict(self._wanted(rounds))
        check(COUNTED, said == wanted, lambda: f"{_different(said, wanted)}")
        if not world.plan.endpoint_s:
            pending = sync.service_changes_pending, sync.endpoint_changes_pending
            waits = sum(c.services for c in rounds.waits), sum(c.slices for c in rounds.waits)
            check(PENDING, pending == waits, f"{pending} are pending, not {waits}")
        self._check_served_state(rounds, facts)

    def _wanted(self, rounds: Rounds) -> Mapping[str, object]:
        now = self._world.timeline.now
        return {
            "rounds": rounds.done,
            "failures": rounds.failures,
            "partial failures": rounds.partial_failures,
            "last queued": round(rounds.last_queued, 3),
            "last done": round(rounds.last_done, 3),
            "Services": rounds.services,
            "slices": rounds.slices,
            "repairs": rounds.repairs,
            "repaired lately": sum(now - at < _MINUTE_S for at in rounds.repaired_at),
            "has drifted": rounds.has_drifted,
            "steering has a problem": rounds.is_refused,
            "a round has a problem": rounds.is_refused and not rounds.has_drifted,
        }

    def _check_served_state(self, rounds: Rounds, facts: StatusFacts) -> None:
        check, unix, at = (
            self._world.judgements.check,
            self._world.unix(),
            facts.last_state.served_at,
        )
        wanted = rounds.state_served_at if self._world.plan.keeps_state else 0.0
        what = f"the status has a last state of {at:.3f}, and it is of {wanted:.3f}"
        check(SERVED_STATE, abs(at - wanted) < _NEAR_S, what)
        is_named = any(each.kind == "last state served" for each in problems_of_node(facts, unix))
        what = f"{'a' if is_named else 'no'} last state is named, and its time is {wanted:.3f}"
        check(SERVED_STATE, is_named is bool(wanted), what)

    def is_late(self, run: AgentRun, unix: float) -> bool:
        """Return whether a change of an agent is late at a Unix time."""
        since = self.of(run.process).waiting_since
        return bool(since) and unix - since >= _LATE_S

    def check_late(self, run: AgentRun, facts: StatusFacts, healthy: int | None) -> None:
        """Judge what is said just before a change is late, and then.

        Args:
            healthy: What /healthz answers if no change is late; None: that isn't known now.
        """
        since = self.of(run.process).waiting_since
        for waited_s in (_LATE_S - _NEAR_S, _LATE_S + _NEAR_S) if since else ():
            at, is_late = since + waited_s, waited_s >= _LATE_S
            if is_late or healthy is not None:
                self.check_answer(facts, at, 503 if is_late else healthy or 503)
            kinds = [each.kind for each in problems_of_node(facts, at)]
            what = f"after {waited_s:.3f} s of waiting the status has the problems {kinds}"
            self._world.judgements.check(LATE, ("change waits" in kinds) is is_late, what)
            self._check_ports(run, at, is_late=is_late)

    def check_answer(self, facts: StatusFacts, at: float, wanted: int) -> None:
        """Judge what /healthz answers at a Unix time."""
        answer = answer_healthz(facts, at)
        since, check = facts.sync.waiting_since, self._world.judgements.check
        waited = f", and a change has waited {at - since:.3f} s" if since else ""
        check(LATE, answer.status == wanted, f"/healthz says {answer.status}{waited}")
        body = json.loads(answer.body)
        is_in_time = not since or at - since < _LATE_S
        shown = body["healthy"], body["nodeEligible"]
        what = f"/healthz says {shown} (healthy, eligible){waited}"
        check(LATE, shown == (is_in_time, facts.node_is_eligible), what)
        updated = at if answer.status == 200 else facts.sync.last_done
        what = f"/healthz says {body['lastUpdated']}, not {updated:.3f}"
        check(LATE, abs(_unix_of(body["lastUpdated"]) - updated) < _NEAR_S, what)

    def _check_ports(self, run: AgentRun, at: float, *, is_late: bool) -> None:
        """Judge what health check ports answer at a Unix time."""
        world = self._world
        offset = world.unix_offset
        for number in world.cluster.last.open_health_ports:
            with run.process:
                now = answer_of(run.core.health_checks, number)
                world.unix_offset = at - world.timeline.now
                then = answer_of(run.core.health_checks, number)
                world.unix_offset = offset
            # What is late says nothing of any Service.
            is_right = then != 200 if is_late else then == now or now == 503
            what = f"health check port {number} says {then}, and before {now}"
            world.judgements.check(LATE, is_right, what)


def _said(facts: StatusFacts) -> Mapping[str, object]:
    sync, steering = facts.sync, facts.steering
    return {
        "rounds": sync.rounds,
        "failures": sync.failures,
        "partial failures": sync.partial_failures,
        "last queued": round(sync.last_queued, 3),
        "last done": round(sync.last_done, 3),
        "Services": sync.service_changes,
        "slices": sync.endpoint_changes,
        "repairs": steering.repairs,
        "repaired lately": steering.repaired_last_minute,
        "has drifted": steering.has_drifted,
        "steering has a problem": bool(steering.problem),
        "a round has a problem": bool(sync.problem),
    }


def _different(said: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} {said[name]}, not {wanted[name]}" for name in said if said[name] != wanted[name]
    )


def _count(have: Snapshot | None, want: Snapshot) -> tuple[int, int]:
    """Return in how many Services and slices two snapshots differ."""
    old = _objects_of(have) if have is not None else ({}, {})
    (services, slices), (new_services, new_slices) = old, _objects_of(want)
    return (
        sum(services.get(k) != new_services.get(k) for k in services.keys() | new_services.keys()),
        # One that was deleted and made again has changed, whatever it contains.
        sum(slices.get(k) is not new_slices.get(k) for k in slices.keys() | new_slices.keys()),
    )


def _objects_of(snapshot: Snapshot) -> tuple[dict[Any, Any], dict[Any, Any]]:
    states = dict(snapshot.services.items())
    # One that is another Service's now has left one, and come to the other.
    slices = {(key, item.key): item for key, state in states.items() for item in state.slices}
    return {key: state.service for key, state in states.items()}, slices


def _unix_of(text: str) -> float:
    """Return a time of RFC 3339; 0 for the first one that Go has."""
    year = int(text.partition("-")[0])
    return datetime.fromisoformat(text).timestamp() if year > 1 else 0.0
