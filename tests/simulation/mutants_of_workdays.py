"""Mutants as mistakes of ordinary days: what is passed on, kept and cleaned up around TCP."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "flush-reads-no-further": Mutant(
        "relay",
        "                self.is_stuck = False\n                self.release()\n"
        "                self.pump()\n",
        "                self.is_stuck = False\n                self.release()\n",
    ),
    "reset-behind-answers-only": Mutant(
        "late_reset",
        "for direction in (up, down) if is_aborting else (down,):",
        "for direction in (down,):",
    ),
    "leaving-standby-is-forgotten": Mutant(
        "removals",
        "        known.update(dict.fromkeys(left, now))\n",
        "        known = dict.fromkeys(left, now)\n",
    ),
    "hold-ends-with-its-line": Mutant(
        "memory_pressure",
        "        self._descriptors.hold(None)\n        if self._has_logged:\n",
        "        if self._has_logged:\n            self._descriptors.hold(None)\n",
    ),
    "return-without-slow-start": Mutant(
        "balancers",
        "others = frozenset(self._serving.all_endpoints) - {endpoint}",
        "others = frozenset(self._serving.all_endpoints)",
    ),
    "second-request-isnt-noted": Mutant(
        "probes",
        "            requests = self._under_way[endpoint] = _Requests()\n"
        "        requests.add(group, client)",
        "            requests = self._under_way[endpoint] = _Requests()\n"
        "            requests.add(group, client)",
    ),
    "announced-address-is-dialled-from": Mutant(
        "accepted_headers", "            connection.may_preserve = False\n", ""
    ),
    "room-stays-uniform": Mutant(
        "waiting_room",
        "        self._hold = hold\n        self._is_uniform = is_uniform\n        self.retry()",
        "        self._hold = hold\n        self.retry()",
    ),
    "pipe-of-answers-is-lost": Mutant(
        "tcp",
        "            up.release()\n            down.release()\n",
        "            up.release()\n",
    ),
    "spared-bytes-are-freed": Mutant(
        "shares", "    excess = min(excess, left - spared)\n", "", package="policy"
    ),
    "socket-without-a-port-stays-open": Mutant(
        "client_address",
        "            # A socket that is bound can't be bound again.\n            sock.close()\n",
        "            # A socket that is bound can't be bound again.\n",
    ),
    "turn-after-the-end": Mutant(
        "tcp_dial",
        '        """Give up, as the connection ends and no endpoint has answered. Idempotent."""\n'
        "        self._awaits_turn = False\n",
        '        """Give up, as the connection ends and no endpoint has answered. Idempotent."""\n',
    ),
}
"""By name."""
