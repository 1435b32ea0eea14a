"""Runs the sync loop: newest snapshot, plan, diff and apply, in the right order.

    open listeners ─▶ steer in one transaction ─▶ forget stale flows ─▶ applied ──▶ close listeners
      Planning          Rules                       Rules                Progress    ServedPorts

Rule 1: a frontend is steered to a proxy port only while its listener accepts.
Rule 2: snapshots that arrive during a round are handled together in the next round, except changes
that wait for their turn.
Rule 3: a failed round leaves the previous state unchanged, and is retried.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from ...clocks import Clocks
from ...cluster import Snapshot
from ...log_fields import FieldLogger
from ...plan import Plan, PlanChanges
from ...sources import Happening
from ...steering import Steering
from .change_turns import ChangeTurns
from .changes import Progress, SyncCounters
from .planning import Planning
from .rules import Rules
from .served_ports import ServedPorts
from .tasks import Pace

_log = FieldLogger("userspace_proxy.agent")

# The interval of repairs. Legacy tables send no event when another program changes them; with this
# interval, a flush is repaired within two seconds.
REPAIR_S = 1.0
# Seconds until the retry after a failure; other programs hold the xtables lock for less time.
RETRY_S = 1.0


class SyncLoop:
    """The loop that makes the node match the newest snapshot.

    Args:
        steering: The steering mechanism, which the caller has started.
        min_period_s: The minimum number of seconds between the starts of two rounds; changes that
            arrive in between are applied together.
        check_health: Serves a plan's health check node ports; also called every second to retry.
        report: Called with events for users of the cluster.
    """

    def __init__(
        self,
        planning: Planning,
        served_ports: ServedPorts,
        steering: Steering,
        *,
        min_period_s: float = 0.0,
        check_health: Callable[[Plan], Awaitable[None]] | None = None,
        report: Callable[[Happening], None] = lambda _happening: None,
    ) -> None:
        self.planning = planning
        self.counters = SyncCounters()
        self.progress = Progress(self.counters, ChangeTurns(elements=planning.kernel_elements))
        """The newest and the applied snapshot."""
        self.rules = Rules(steering, served_ports, self.counters, report)
        """Writes the steering rules, and stores their problem."""
        self.on_round: Callable[[float, bool, Sequence[float]], None] = lambda *_: None
        """Called after each successful round with its duration in seconds, whether all rules were
        written, and the seconds from each slice's trigger until now."""
        self._served_ports = served_ports
        self._min_period_s = min_period_s
        self._check_health = check_health or _nothing
        self._owes_round = False
        """Whether a round is due without a new snapshot, because the node or a listener changed."""
        self._is_unfinished = False
        """Whether the last round failed, so that it must be repeated even without a new change."""
        self._owes_paths = False
        served_ports.auto_paths.on_change = self._look_at_paths
        self._turned = Clocks.monotonic()
        self._wake = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        """Store the newest snapshot, and start a round if the snapshot is new."""
        if self.progress.add(snapshot):
            self._wake.set()

    def look_again(self) -> None:
        """Plan the same snapshot again because the node has changed."""
        self._owes_round = True
        self._wake.set()

    def _look_at_paths(self) -> None:
        """Wake the loop to switch to paths that probes chose, before the next round."""
        self._owes_paths = True
        self._wake.set()

    @property
    def plan(self) -> Plan:
        return self.planning.plan

    @property
    def turned_s_ago(self) -> float:
        """Seconds since the loop last began an iteration, or a turn within an iteration.

        The value stays below about a second unless the loop is stuck. An iteration counts even if
        the kernel refuses its round.
        """
        return Clocks.monotonic() - max(self._turned, self.planning.turned)

    @property
    def _is_behind(self) -> bool:
        return self.progress.is_behind or self._owes_round or self._is_unfinished

    async def run(self) -> None:
        """Run rounds until cancelled, and repair changes by other programs.

        Raises:
            SteeringError: The kernel lacks a feature that the first rules require.
        """
        loop = asyncio.get_running_loop()
        round_began = -self._min_period_s
        look_at = loop.time() + REPAIR_S
        while True:
            self._note_turn()
            # A failed round leaves the loop behind, so it is retried after RETRY_S.
            is_behind = self._is_behind
            until_look_s = RETRY_S if is_behind else look_at - loop.time()
            is_due = await self._woken(min(until_look_s, self.progress.next_turn_in_s))
            is_due |= self.progress.next_turn_in_s <= 0
            if self._owes_paths:
                await self._switch_paths()
                is_due = self._is_behind or self.progress.next_turn_in_s <= 0
            if not is_behind and loop.time() >= look_at:
                # Repair even while changes arrive, so that a flush doesn't last until they stop.
                look_at = loop.time() + REPAIR_S
                if await self._retry():
                    self._owes_round = is_due = True
                await self.rules.repair()
                await self._check_health(self.plan)
            if not is_due and not is_behind:
                continue
            early = round_began + self._min_period_s - loop.time()
            while early > 0:
                self._wake.clear()
                await self._woken(early)
                if self._owes_paths:
                    await self._switch_paths(may_enter=False)
                early = round_began + self._min_period_s - loop.time()
            self._wake.clear()
            round_began = loop.time()
            await self._round()

    async def _woken(self, within_s: float) -> bool:
        """Wait until the loop is woken; return False if it wasn't woken in time."""
        # Don't use wait_for: before Python 3.12, a cancellation that arrives with a wake is lost.
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _note_turn(self) -> None:
        self._turned = Clocks.monotonic()

    async def _retry(self) -> bool:
        """Retry failed listeners; return whether anything changed."""
        pace, has_changed = Pace(self._note_turn), False
        self.planning.spare_ports()
        for is_change in self._served_ports.retry():
            has_changed |= is_change
            await pace.turn()
        return has_changed

    async def _switch_paths(self, *, may_enter: bool = True) -> None:
        """Switch to paths that probes chose, without a round, because clients may be failing."""
        self._owes_paths = False
        self._wake.clear()
        # If the rules aren't applied, the next round also switches the paths.
        if self.rules.are_in_force:
            self._served_ports.switch_paths(may_enter=may_enter)
            self._owes_round |= not await self.rules.follow()
        await self.rules.forget_stale()

    async def _round(self) -> None:
        batch = self.progress.begin()
        if batch is None:
            return
        self._is_unfinished = True
        is_full = not self.rules.are_in_force
        changes = await self.planning.follow(batch.snapshot)
        # Don't move ports to the kernel path twice in a row: a pending switch of paths moves more.
        self._served_ports.switch_paths(may_enter=not self._owes_paths)
        if not await self.rules.follow():
            return
        await self._check_health(self.plan)
        self.planning.end_recovery()
        # Delete stale conntrack entries before the round counts as applied and listeners close,
        # because existing flows may still be translated to closing listeners.
        await self.rules.forget_stale()
        programmed_s = self.progress.end(batch)
        self._is_unfinished = False
        self._owes_round = self._owes_round and self._wake.is_set()
        self.on_round(self.counters.last_s, is_full, programmed_s)
        await self.progress.announce()
        if changes:
            self._log_round(batch.snapshot, changes)
        self._served_ports.close_retired()

    def _log_round(self, snapshot: Snapshot, changes: PlanChanges) -> None:
        # Frequent changes cause ten rounds a second, so only the first round is logged at INFO.
        _log.log(
            logging.INFO if self.counters.rounds == 1 else logging.DEBUG,
            "plan applied",
            extra={
                "revision": snapshot.revision,
                "opened": len(changes.open),
                "updated": len(changes.update),
                "closed": len(changes.close),
                "duration_s": round(self.counters.last_s, 4),
            },
        )


async def _nothing(_plan: Plan) -> None:
    """Do nothing."""
