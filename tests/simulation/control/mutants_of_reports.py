"""The table of mutants of the control half that concern reports, stand-ins, and ends of workers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")

MUTANTS: Mapping[str, Mutant] = {
    "wanted-again-and-closed": _plane(
        "listeners",
        "                if key in wanted:\n"
        "                    self._unwanted.pop(listener, None)\n",
        "",
    ),
    "stand-in-that-is-dead": _plane(
        "stand_ins", "if stand_in != worker}", "if m != worker or stand_in != worker}"
    ),
    "end-is-not-sent": _plane(
        "channel",
        "        with contextlib.suppress(OSError):\n            self._send_waiting()\n",
        "",
    ),
    "clients-wait-in-a-dead-worker": _plane(
        "group",
        "        self._ejected = _with(self._ejected, worker, None)\n"
        "        self._waiting = _with(self._waiting, worker, None)\n",
        "        self._ejected = _with(self._ejected, worker, None)\n",
    ),
    "early-deaths-add-up": _plane(
        "workers",
        "self._early_deaths = 0 if is_sound else self._early_deaths + 1",
        "self._early_deaths += not is_sound",
    ),
    "death-in-a-drain-is-waited-for": _plane(
        "workers",
        "            self._owner.worker_ended(self.index)\n            self._note_drained(0)\n",
        "            self._owner.worker_ended(self.index)\n",
    ),
    "reports-made-as-one-are-owed": _plane(
        "workers", "        while number in self.asked:\n", "        if number in self.asked:\n"
    ),
    "later-readers-are-forgotten": _plane(
        "worker",
        "        self._asked = message.number\n        if self._slices is None:\n",
        "        self._asked = self._asked or message.number\n        if self._slices is None:\n",
    ),
    "streak-without-success": _plane(
        "differences", "getattr(self.counters, name).whole()", "getattr(self.counters, name).part"
    ),
    "choice-of-sockets-lost": _plane(
        "listener",
        "                self.refuse()\n                raise\n            self._choose()\n",
        "                self.refuse()\n                raise\n",
    ),
    "dead-worker-owes-a-closing": _plane(
        "listeners",
        "        for listener in (*self._open.values(), *self._leaving.values()):\n"
        "            if owed",
        "        for listener in self._open.values():\n            if owed",
    ),
    "successor-preserves-nothing": _plane(
        "plane",
        "            self._send(worker, Preserve(True, [], dict(self._networks)))",
        "            pass",
    ),
    "late-pins-are-kept": _plane("adoption", "        self._taken.add(label)\n", ""),
    "drain-longer-by-replies": _plane(
        "worker", "rest_s = message.seconds - replies_s", "rest_s = message.seconds"
    ),
    "last-messages-unread": _plane("worker_process", "        self._channel.read()\n", ""),
    "orphan-for-a-moment": _plane(
        "worker_main",
        "self._loop.call_later(ORPHAN_S, self._end, 1)",
        "self._loop.call_later(PINS_S, self._end, 1)",
    ),
    "relief-before-all-run": _plane(
        "plane", "        while not self.has_all_workers:\n            await wait()\n", ""
    ),
    "choice-that-is-noted-only": _plane(
        "listener",
        "            self._by_client = by_client\n            self._choose()\n",
        "            self._by_client = by_client\n",
    ),
    "pins-for-one-worker": _plane(
        "plane",
        "                    self._send_all(pins)\n",
        "                    self._send(0, pins)\n",
    ),
    "late-predecessors-are-left-alone": _plane(
        "adoption",
        "        late = [worker for worker in self._workers if not worker.handed_over.done()]",
        "        late: list[_Predecessor] = []",
    ),
    "flows-of-the-removed-uncounted": _plane(
        "worker", "        if differences is not None:\n            differences.end_update()\n", ""
    ),
    "chosen-and-not-answered": _plane(
        "worker_main", "        self._on_message(HandOver(), [])\n", ""
    ),
    "patience-with-those-that-run": _plane(
        "workers",
        "(HUNG_S if self.is_running else HUNG_IN_START_S)",
        "(HUNG_IN_START_S if self.is_running else HUNG_S)",
    ),
}
