"""Faults of planes that were planted to measure the simulation, and that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")

MUTANTS: Mapping[str, Mutant] = {
    "messages-in-the-opposite-order": _plane(
        "channel", "self._waiting.extendleft(reversed(batch))", "self._waiting.extendleft(batch)"
    ),
    "listeners-of-all-descriptors": _plane(
        "listeners",
        "have + len(all_workers) <= self._limit // 2",
        "have + len(all_workers) <= self._limit",
    ),
    "listener-that-cannot-listen-holds-clients": _plane(
        "listener",
        "                self.refuse()\n                raise",
        "                raise",
    ),
    "half-opened-sockets-stay": _plane(
        "listener",
        "            self._close_sockets()\n            raise",
        "            raise",
    ),
    "port-that-cant-be-opened-again-isnt-kept": _plane(
        "listener",
        "            self._close_sockets()\n            raise",
        "            self.close()\n            raise",
    ),
    "those-that-wait-outlive-their-service": _plane(
        "worker",
        "handling = dataclasses.replace(group.serving.handling, hold=None)",
        "handling = group.serving.handling",
    ),
    "successor-keeps-no-socket": _plane(
        "plane",
        "            self._send(worker, Keep(name), sock)\n        if self._networks",
        "            pass\n        if self._networks",
    ),
    "deaths-at-the-start-are-never-forgotten": _plane(
        "workers",
        "self._early_deaths = 0 if is_sound else self._early_deaths + 1",
        "self._early_deaths += 0 if is_sound else 1",
    ),
    "messages-with-closed-sockets-are-sent": _plane(
        "channel", "if any(sock.fileno() < 0 for sock in socks):", "if not frame:"
    ),
    "hung-worker-has-a-long-time": _plane(
        "workers",
        "(HUNG_S if self.is_running else HUNG_IN_START_S)",
        "(10 * HUNG_S if self.is_running else HUNG_IN_START_S)",
    ),
    "confirmations-of-a-port-taken-over-are-lost": _plane(
        "listeners",
        "            self._leaving.update(dict.fromkeys(old.numbers, listener))\n",
        "",
    ),
}
