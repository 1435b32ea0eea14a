"""Faults of a node that show when something is lacking, refused or changed from outside."""

from __future__ import annotations

from collections.abc import Mapping

from ..mutant_table import Mutant

_ROUNDS = "agent.rounds"

MUTANTS: Mapping[str, Mutant] = {
    # -- health check node ports
    "health-port-that-failed-is-not-tried-again": Mutant(
        "sync",
        "                await self.rules.repair()\n"
        "                await self._check_health(self.plan)\n",
        "                await self.rules.repair()\n",
        _ROUNDS,
    ),
    "health-port-of-another-program-is-left-to-it": Mutant(
        "health_checks",
        "if at not in self._listeners and (problem :=",
        "if at not in {**self._listeners, **self._holders} and (problem :=",
        "status",
    ),
    # -- proxy ports
    "proxy-port-that-is-free-again-is-not-used": Mutant(
        "served_ports", "        self._addresses.give(closed)\n", "", _ROUNDS
    ),
    "what-waits-for-a-proxy-port-has-no-turn": Mutant(
        "served_ports",
        "        while (key := shares.next_waiting()) is not None:",
        "        while (key := None) is not None:",
        _ROUNDS,
    ),
    "what-lacks-a-proxy-port-does-not-wait": Mutant(
        "shortages", "        self.shares.wait(key)\n", "", _ROUNDS
    ),
    # -- queues of listeners
    "queue-of-one-client": Mutant("tuning", "BACKLOG = 4096", "BACKLOG = 1"),
    "queue-of-one-client-after-it-refused": Mutant(
        "sockets",
        "            sock.listen(BACKLOG)\n            hold_acks(sock)\n    except",
        "            sock.listen(1)\n            hold_acks(sock)\n    except",
    ),
    # -- addresses of the node
    "new-addresses-are-not-noticed": Mutant(
        "node_now",
        "running_loop(), self.on_change)",
        "running_loop(), lambda: None)",
        "agent.watchers",
    ),
    "addresses-of-the-first-plan": Mutant(
        "facts",
        "            self.node_port_networks, self.addresses, self.primary",
        "            self.node_port_networks, self.addresses[:2], self.primary",
        "policy",
    ),
    # -- what the last agent had
    "recovered-port-that-leads-several": Mutant(
        "planning", " and len(owners[f.protocol, p]) == 1", "", _ROUNDS
    ),
    "port-of-one-that-is-gone-goes-with-its-address": Mutant(
        "planning", "if f in telling and len", "if len", _ROUNDS
    ),
    # -- rules
    "refused-repair-is-the-last": Mutant(
        "rules",
        "        if not self._has_steered:\n            return\n",
        "        if not self._has_steered or self.has_drifted:\n            return\n",
        _ROUNDS,
    ),
    "second-drift-is-not-repaired": Mutant(
        "rules",
        "        if not self._has_steered:\n            return\n",
        "        if not self._has_steered or self._counters.repairs:\n            return\n",
        _ROUNDS,
    ),
    "refused-rules-wait-for-a-change": Mutant(
        "sync",
        "            until_look_s = RETRY_S if is_behind else look_at - loop.time()",
        "            until_look_s = 1e9 if is_behind else look_at - loop.time()",
        _ROUNDS,
    ),
    "refused-round-is-not-owed": Mutant(
        "sync",
        "progress.is_behind or self._owes_round or self._is_unfinished",
        "progress.is_behind",
        _ROUNDS,
    ),
    "refused-turn-is-not-owed": Mutant(
        "sync",
        "progress.is_behind or self._owes_round or self._is_unfinished",
        "progress.is_behind or self._owes_round",
        _ROUNDS,
    ),
    "node-port-is-not-bound-again": Mutant(
        "served_ports", "        self._reservations.bind_again()\n", "", _ROUNDS
    ),
}
