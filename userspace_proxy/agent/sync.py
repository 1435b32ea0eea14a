"""The sync loop: newest snapshot, plan, diff and apply, in the right order.

    open listeners ─▶ steer what changed in one transaction ─▶ in force ─▶ close listeners

Rule 1: a frontend is steered to a proxy port only while its listener accepts.
Rule 2: snapshots that arrive during a round are handled together in the next round.
Rule 3: a round that fails leaves in force what was served, and is retried.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ..cluster import Snapshot
from ..errors import SteeringError
from ..log_fields import FieldLogger
from ..log_limit import LogLimit
from ..model import CauseCode, Frontend, ServiceKey
from ..plan import Plan, PlanChanges, Planner, diff_plans
from ..policy import NodeFacts
from ..sources import Happening
from ..steering import Steering
from .changes import SyncCounters, Triggers, count_changes
from .served_ports import ServedPort, ServedPorts
from .tasks import Pace

_log = FieldLogger("userspace_proxy.agent")

# Legacy tables send no event when another program changes them: often enough that a flush is
# repaired within two seconds.
REPAIR_S = 1.0
# After a failure: other programs hold their lock for less.
RETRY_S = 1.0
# A minute. The page shows the path of each Service port.
_SWITCH_LINES = 20


class SyncLoop:
    """Makes the node match the newest snapshot.

    Args:
        steering: Started by the caller.
        recovered: Proxy ports that rules of an earlier run still point to.
        min_period_s: Seconds between the beginnings of two rounds, so that frequent changes
            take one round and not hundreds.
        facts: Returns the current node facts for a plan; None: the planner's are used.
        check_health: Serves the health check node ports of a plan; also each second, to retry.
        prepare: Called with what will change, before anything of it is served.
        report: Called with what the cluster's users should be able to read.
        want_nodes: Called with whether the plan depends on all Nodes' addresses.
    """

    def __init__(
        self,
        planner: Planner,
        served_ports: ServedPorts,
        steering: Steering,
        *,
        recovered: Mapping[Frontend, int],
        min_period_s: float = 0.0,
        facts: Callable[[Snapshot], NodeFacts] | None = None,
        check_health: Callable[[Plan], Awaitable[None]] | None = None,
        prepare: Callable[[PlanChanges], Awaitable[None]] | None = None,
        report: Callable[[Happening], None] = lambda _happening: None,
        want_nodes: Callable[[bool], None] = lambda _is_wanted: None,
    ) -> None:
        self.plan = Plan.empty()
        """The plan that the listeners follow."""
        self.counters = SyncCounters()
        self.steering_problem = ""
        """Why the kernel's rules are behind the plan; empty if they aren't."""
        self.has_drifted = False
        """Another program has changed the rules, and they can't be repaired."""
        self.on_plan: Callable[[Plan, PlanChanges], None] = lambda _before, _changes: None
        """Called with the plan in force and what will change in it."""
        self.on_switch: Callable[[Sequence[ServedPort]], None] = lambda _ports: None
        """Called with Service ports whose path has changed because of probes."""
        self.on_round: Callable[[float, bool, Sequence[float]], None] = lambda *_: None
        """Called after each round that succeeds: with its duration in seconds, whether everything
        was compared, and for each slice how long it took to come into force."""
        self._planner = planner
        self._served_ports = served_ports
        self._steering = steering
        self._recovered = dict(recovered)
        # Until the first round is in force, old rules point to these ports, also those of
        # Services that are gone: another Service on such a port would get their clients.
        served_ports.pool.spare(self._recovered.values())
        self._min_period_s = min_period_s
        self._facts = facts
        self._check_health = check_health or _nothing
        self._prepare = prepare or _nothing
        self._report = report
        self._want_nodes = want_nodes
        self._latest: Snapshot | None = None
        self._in_force: Snapshot | None = None
        self._has_steered = False
        """Something was applied, so there is something to repair."""
        self._is_steered = False
        """The last change succeeded, so the next one can be a difference."""
        self._owes_round = False
        """The node has changed since the last round that succeeded."""
        self._owes_paths = False
        self._switch_lines = LogLimit(_SWITCH_LINES)
        served_ports.auto_paths.on_change = self._look_at_paths
        served_ports.shortages.on_excess = self._report_unserved
        self._arrived = 0.0
        """Unix time of the first snapshot since the present round began; 0: none."""
        self._triggers = Triggers(time.time())
        self._turned = time.monotonic()
        self._wake = asyncio.Event()
        self._done = asyncio.Condition()

    def publish(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot; a round follows."""
        if snapshot is self._latest:
            return
        counters = self.counters
        counters.changes = counters.changes.plus(count_changes(self._latest, snapshot))
        self._triggers.note(self._latest, snapshot)
        counters.last_queued = time.time()
        counters.waiting_since = counters.waiting_since or counters.last_queued
        self._arrived = self._arrived or counters.last_queued
        self._latest = snapshot
        self._wake.set()

    def look_again(self) -> None:
        """Plan the same snapshot again, because the node has changed."""
        self._owes_round = True
        self._wake.set()

    def _look_at_paths(self) -> None:
        """Follow what probes have shown, before the next round."""
        self._owes_paths = True
        self._wake.set()

    @property
    def is_synced(self) -> bool:
        """Whether a first snapshot is in force."""
        return self._in_force is not None

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot, perhaps not in force yet; None before the first one."""
        return self._latest

    @property
    def in_force(self) -> Snapshot | None:
        """The snapshot that is in force; None before the first one."""
        return self._in_force

    @property
    def turned_s_ago(self) -> float:
        """Seconds since the loop last began an iteration: a second or less, unless it is stuck.

        An iteration whose round the kernel refuses counts like any other.
        """
        return time.monotonic() - self._turned

    @property
    def node_is_being_deleted(self) -> bool:
        """Whether this node's object is about to be deleted."""
        node = self._latest.node if self._latest else None
        return node is not None and node.is_being_deleted

    async def settled(self) -> None:
        """Wait until the newest snapshot is in force."""
        async with self._done:
            await self._done.wait_for(lambda: self._in_force is self._latest is not None)

    async def in_force_after(self, earlier: Snapshot | None) -> Snapshot:
        """Wait until another snapshot than an earlier one is in force, and return it."""
        async with self._done:
            while self._in_force is None or self._in_force is earlier:
                await self._done.wait()
            return self._in_force

    async def round_after(self, rounds: int) -> int:
        """Wait until more rounds than that have succeeded, and return how many."""
        async with self._done:
            await self._done.wait_for(lambda: self.counters.rounds > rounds)
        return self.counters.rounds

    async def run(self) -> None:
        """Do rounds for ever, and repair what other programs change."""
        loop = asyncio.get_running_loop()
        round_began = -self._min_period_s
        look_at = loop.time() + REPAIR_S
        while True:
            self._turned = time.monotonic()
            # Also after a round that failed.
            is_behind = self._in_force is not self._latest or self._owes_round
            is_due = await self._woken(RETRY_S if is_behind else look_at - loop.time())
            if self._owes_paths:
                await self._switch_paths()
                is_due = self._in_force is not self._latest or self._owes_round
            if not is_behind and loop.time() >= look_at:
                # Also while changes keep arriving: a flush is repaired before they end.
                look_at = loop.time() + REPAIR_S
                if await self._retry():
                    self._owes_round = is_due = True
                await self._repair()
                await self._check_health(self.plan)
            if not is_due and not is_behind:
                continue
            early = round_began + self._min_period_s - loop.time()
            while early > 0:
                self._wake.clear()
                await self._woken(early)
                if self._owes_paths:
                    await self._switch_paths()
                early = round_began + self._min_period_s - loop.time()
            self._wake.clear()
            round_began = loop.time()
            if self._latest is not None:
                await self._round(self._latest)

    async def _woken(self, within_s: float) -> bool:
        """Wait for a snapshot; False if none arrived in time."""
        # Not wait_for: until Python 3.12 it loses a cancellation that arrives with a wake.
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _retry(self) -> bool:
        """Retry what couldn't be opened; returns whether something has changed."""
        pace, has_changed = Pace(), False
        for is_change in self._served_ports.retry():
            has_changed |= is_change
            await pace.turn()
        return has_changed

    async def _switch_paths(self) -> None:
        """Steer along the paths that probes ask for, without a round: clients fail meanwhile."""
        self._owes_paths = False
        self._wake.clear()
        # Otherwise the next round does it.
        if self._is_steered and not await self._steer():
            self._owes_round = True
        await self._steering.forget_stale()

    async def _round(self, snapshot: Snapshot) -> None:
        began = time.perf_counter()
        self._arrived = 0.0
        arrived = self.counters.changes
        triggers, is_full = len(self._triggers), not self._is_steered
        facts = self._facts(snapshot) if self._facts is not None else None
        plan = self._planner.plan(snapshot, facts)
        self._want_nodes(self._planner.needs_node_addresses)
        changes = diff_plans(self.plan, plan)
        await self._prepare(changes)
        await self._change_listeners(changes)
        self._report_conflicts(plan)
        self._report_left_out(changes)
        self.on_plan(self.plan, changes)
        self.plan = plan
        if not await self._steer():
            return
        await self._check_health(plan)
        if self._recovered:
            self._recovered.clear()
            self._served_ports.pool.spare(())
        self._in_force = snapshot
        self._owes_round = self._owes_round and self._wake.is_set()
        counters = self.counters
        counters.rounds += 1
        counters.last_s = time.perf_counter() - began
        counters.last_done = time.time()
        counters.waiting_since = self._arrived
        counters.in_force = arrived
        programmed_s = self._triggers.take(triggers, counters.last_done)
        self.on_round(counters.last_s, is_full, programmed_s)
        async with self._done:
            self._done.notify_all()
        if changes:
            # Frequent changes take ten rounds a second: only the first is worth a line.
            _log.log(
                logging.INFO if counters.rounds == 1 else logging.DEBUG,
                "plan in force",
                extra={
                    "revision": snapshot.revision,
                    "opened": len(changes.open),
                    "updated": len(changes.update),
                    "closed": len(changes.close),
                    "duration_s": round(counters.last_s, 4),
                },
            )
        # Before listeners close: flows may still lead to them.
        await self._steering.forget_stale()
        self._served_ports.close_retired()

    async def _change_listeners(self, changes: PlanChanges) -> None:
        for key in changes.close:
            self._served_ports.retire(key)
        pace = Pace()
        for port in changes.update:
            self._served_ports.update(port)
            await pace.turn()
        # Service ports with recovered proxy ports go first, so that others don't take these.
        known = self._recovered.keys()
        for port in sorted(changes.open, key=lambda p: not (known & set(p.frontends))):
            self._served_ports.open(port, self._recovered)
            await pace.turn()

    def _report_conflicts(self, plan: Plan) -> None:
        if plan.ignored is self.plan.ignored:
            return
        for item in set(plan.ignored) - set(self.plan.ignored):
            if item.is_conflict:
                cause = str(item.cause)
                fields = {"service": str(item.service), "port": item.port, "cause": cause}
                _log.warning("%(service)s: Service is not served: %(cause)s", extra=fields)
                port = f"port {item.port}: " if item.port else ""
                self._report_unserved(item.service, f"{port}{cause}")

    def _report_unserved(self, service: ServiceKey, note: str) -> None:
        self._report(Happening("ServiceNotServed", "Serve", note, service=service))

    def _report_left_out(self, changes: PlanChanges) -> None:
        for port in (*changes.open, *changes.update):
            before = self.plan.ports.get(port.key)
            for note in port.notes:
                is_new = before is None or note not in before.notes
                if note.code is CauseCode.TOO_MANY_ENDPOINTS and is_new:
                    service, text = port.key.name.service, f"{port.key}: {note}"
                    self._report(Happening("EndpointsLeftOut", "Serve", text, service=service))

    async def _steer(self) -> bool:
        self._served_ports.switch_paths()
        change = self._served_ports.steering_change()
        if change or not self._is_steered:
            try:
                if self._is_steered:
                    await self._steering.change(change.changed, change.gone)
                else:
                    await self._steering.apply(self._served_ports.targets())
            except SteeringError as exc:
                self.counters.partial_failures += self._is_steered
                self._is_steered = False
                self._note_failure(exc)
                return False
            self._has_steered = self._is_steered = True
            self._note_recovery()
        switched = self._served_ports.mark_steered(change)
        self._served_ports.note_unsteered(self._steering.unsteered)
        self._note_switches(switched)
        return True

    def _note_switches(self, switched: Sequence[ServedPort]) -> None:
        if not switched:
            return
        for served in switched:
            if not self._switch_lines.take(time.monotonic()):
                break
            path = served.path
            fields = {"service": served.group.label, "path": str(path.now), "cause": path.why}
            _log.info("%(service)s: path %(path)s: %(cause)s", extra=fields)
        self.on_switch(switched)

    async def _repair(self) -> None:
        if not self._has_steered:
            return
        name = self._steering.name
        try:
            count = await self._steering.repair()
        except SteeringError as exc:
            if not self.has_drifted:
                note = f"rules of {name} steering differ from the plan and can't be repaired: {exc}"
                self._report(Happening("SteeringDrifted", "Repair", note))
            self.has_drifted = True
            self._note_failure(exc)
            return
        self._note_recovery()
        self._served_ports.note_unsteered(self._steering.unsteered)
        if count:
            self.counters.repairs += count
            _log.warning("steering had drifted and was repaired", extra={"rules": count})
            what = "1 rule or frontend" if count == 1 else f"{count} rules and frontends"
            note = f"{what} of {name} steering had been changed by another program; repaired"
            self._report(Happening("SteeringRepaired", "Repair", note))

    def _note_failure(self, exc: SteeringError) -> None:
        self.counters.failures += 1
        if str(exc) != self.steering_problem:
            self.steering_problem = str(exc)
            _log.error(
                "steering failed, the old state is in force: %(cause)s", extra={"cause": str(exc)}
            )

    def _note_recovery(self) -> None:
        self.has_drifted = False
        if self.steering_problem:
            self.steering_problem = ""
            _log.info("steering works again")


async def _nothing(_of: Plan | PlanChanges) -> None:
    """Do nothing."""
