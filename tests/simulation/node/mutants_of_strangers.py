"""Faults of a node that were planted to measure the simulation, and that it finds."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS = "agent.rounds"

MUTANTS: Mapping[str, Mutant] = {
    "listener-that-failed-is-not-tried-again": Mutant(
        "shortages",
        "        if served.not_listening is not None:\n            self.incomplete[key] = served",
        "        if served.is_listening_again:\n            self.incomplete[key] = served",
        _ROUNDS,
    ),
    "problem-of-a-listener-stays": Mutant(
        "shortages",
        "        served.not_listening, served.is_listening_again = None, False\n",
        "        served.is_listening_again = False\n",
        _ROUNDS,
    ),
    "what-waited-longest-goes-last": Mutant(
        "change_turns",
        "for key in (*first, *changed.difference(first)):",
        "for key in (*changed.difference(first), *first):",
        _ROUNDS,
    ),
    "turn-of-a-namespace-has-no-bound": Mutant(
        "change_turns",
        "                left[namespace] -= cost_s\n",
        "",
        _ROUNDS,
    ),
    "wait-of-a-namespace-does-not-grow": Mutant(
        "turns",
        "min(2 * pace.wait_s, _MOST_TIMES * seconds)",
        "min(pace.wait_s, _MOST_TIMES * seconds)",
        "",
    ),
    "drift-stays-a-problem": Mutant(
        "rules",
        "        self.has_drifted = False\n        self._condition",
        "        self._condition",
        _ROUNDS,
    ),
    "unused-node-port-counts": Mutant(
        "node_ports", "            self._uses[port] -= 1\n", "", _ROUNDS
    ),
    "node-port-of-a-daemon-is-steered": Mutant(
        "served_port",
        "            if frontend not in self.held_by_others:\n",
        "            if self.held_by_others is not None:\n",
        _ROUNDS,
    ),
}
