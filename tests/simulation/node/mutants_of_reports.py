"""Faults of what is said of rounds, health and the last state while these fail and change."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS = "agent.rounds"

MUTANTS: Mapping[str, Mutant] = {
    "each-change-waits-anew": Mutant(
        "changes",
        "        counters.waiting_since = counters.waiting_since or counters.last_queued\n",
        "        counters.waiting_since = counters.last_queued\n",
        _ROUNDS,
    ),
    "each-try-waits-anew": Mutant(
        "changes",
        "        self._taken = self._turns.take(self._taken, newest)\n",
        "        self._taken = self._turns.take(self._taken, newest)\n"
        "        self._counters.waiting_since = 0.0\n",
        _ROUNDS,
    ),
    "change-of-the-node-does-not-wait": Mutant(
        "changes",
        "        counters.waiting_since = counters.waiting_since or Clocks.time()\n",
        "        if self._taken is not self.in_force:\n"
        "            counters.waiting_since = counters.waiting_since or Clocks.time()\n",
        _ROUNDS,
    ),
    "changes-during-a-round-are-in-force": Mutant(
        "changes",
        "counters.in_force = batch.arrived.minus(",
        "counters.in_force = counters.changes.minus(",
        _ROUNDS,
    ),
    "round-that-is-refused-is-the-last-one-done": Mutant(
        "changes",
        "        self._arrived = 0.0\n        arrived, triggers",
        "        self._arrived, self._counters.last_done = 0.0, Clocks.time()\n"
        "        arrived, triggers",
        _ROUNDS,
    ),
    "node-goes-once-that-is-in-force": Mutant(
        "changes",
        "        node = self.latest.node if self.latest else None\n",
        "        node = self.in_force.node if self.in_force else None\n",
        _ROUNDS,
    ),
    "late-change-leaves-health-check-ports-as-they-are": Mutant(
        "health_check_ports",
        "lambda: is_working(self._health(), Clocks.time()), who_holds",
        "lambda: True, who_holds",
        "agent.watchers",
    ),
    "change-that-is-taken-hides-a-drift": Mutant(
        "rules",
        "                    await self._steering.change(change.changed, change.gone)\n",
        "                    await self._steering.change(change.changed, change.gone)\n"
        "                    self._note_recovery()\n",
        _ROUNDS,
    ),
    "last-state-is-as-old-as-its-reading": Mutant(
        "last_state",
        "self._served_at, self._known_at = snapshot, current_at, current_at",
        "self._served_at, self._known_at = snapshot, self._clock(), current_at",
        "agent.watchers",
    ),
    "each-failure-to-keep-the-state-is-the-first": Mutant(
        "last_state",
        "            self._failing_since = self._failing_since or self._clock()\n",
        "            self._failing_since = self._clock()\n",
        "agent.watchers",
    ),
    "source-that-has-answered-is-never-away": Mutant(
        "source",
        "            problems=self._problems,\n",
        "            problems=() if is_synced else self._problems,\n",
        "sources.kubernetes",
    ),
    "request-that-begins-ends-a-problem": Mutant(
        "reflector",
        "            if self._position.needs_list:\n                self._cache",
        '            self.problem = ""\n            self._changed()\n'
        "            if self._position.needs_list:\n                self._cache",
        "sources.kubernetes",
    ),
    "request-that-waits-is-a-problem": Mutant(
        "reflector",
        "        known_at, self._known_at = self._known_at, _UNKNOWN\n",
        "        known_at, self._known_at = self._known_at, _UNKNOWN\n"
        '        self._note_problem("no answer yet")\n',
        "sources.kubernetes",
    ),
    "source-that-has-answered-is-current-for-ever": Mutant(
        "source",
        "            is_current=is_synced and not failing,\n",
        "            is_current=is_synced,\n",
        "sources.kubernetes",
    ),
    "late-change-is-not-named-while-rounds-fail": Mutant(
        "problems",
        "    if waited_s:\n",
        "    if waited_s and not view.sync.problem:\n",
        "diagnosis",
    ),
}
