"""The table of mutants of the control half: faults of messages, deaths and hand-overs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant
from . import mutants_of_control

_plane = partial(Mutant, package="plane")

MUTANTS: Mapping[str, Mutant] = {
    **mutants_of_control.MUTANTS,
    "stand-in-without-end": _plane(
        "stand_ins", "return self._by_missing.pop(missing, None)", "return None"
    ),
    "no-stand-in": _plane(
        "listeners",
        "        stand_in = self._stand_ins.begin(missing, running)\n",
        "        stand_in = self._stand_ins.begin(missing, ())\n",
    ),
    "number-of-stand-ins": _plane(
        "stand_ins",
        "return -(listener * len(self._counts) + missing)",
        "return -(listener * len(self._counts))",
    ),
    "successor-without-listeners": _plane(
        "plane", "        self._listeners.send_all(worker)\n", ""
    ),
    "successor-without-groups": _plane(
        "plane",
        "            self._workers[worker].update(group.opening())\n",
        "            group.opening()\n",
    ),
    "listeners-before-groups": _plane(
        "plane",
        "        for group in self._groups.values():\n"
        "            self._workers[worker].update(group.opening())\n"
        "        self._listeners.send_all(worker)\n",
        "        self._listeners.send_all(worker)\n"
        "        for group in self._groups.values():\n"
        "            self._workers[worker].update(group.opening())\n",
    ),
    "merging-of-the-dead": _plane(
        "workers", "        self._merging = Merging()\n        start", "        start"
    ),
    "queue-of-one-socket-ends-with-its-worker": _plane(
        "listeners",
        "        self._stand_ins.worker_ended(worker)\n",
        "        self._stand_ins.worker_ended(worker)\n"
        "        for own in self._open.values():\n"
        "            if len(self._counts) > 1 and own.workers == (worker,) and own.is_serving:\n"
        "                own.sockets.refuse()\n"
        "                own.sockets.serve()\n",
    ),
    "confirmations-of-the-dead": _plane(
        "listeners",
        "            if owed := listener.closing[worker]:\n",
        "            if owed := 0 * listener.closing[worker]:\n",
    ),
    "confirmation-not-sent": _plane(
        "worker", "        self._send(ListenerClosed(message.listener))", "        pass"
    ),
    "refused-after-workers-know": _plane(
        "listeners",
        "            if serving.is_refusing:\n                # First",
        "            if serving.is_refusing and self is None:\n                # First",
    ),
    "copy-left-open": _plane(
        "worker", "        if self._has_process:\n            listener.sock.close()", "        pass"
    ),
    "active-of-the-dead": _plane(
        "group",
        "        for endpoint, open_ in self._open.get(worker, {}).items():",
        "        for endpoint, open_ in self._open.get(-1, {}).items():",
    ),
    "counters-of-the-dead": _plane(
        "group",
        '        """Subtract a worker\'s open connections; the rest of what it counted stays."""\n',
        "        self._per_endpoint.clear()\n",
    ),
    "report-counted-twice": _plane(
        "differences", "        self._new = {}\n        return Group", "        return Group"
    ),
    "move-not-sent": _plane(
        "listeners",
        "            self._send(holder, MoveListener(number, group.number))",
        "            pass",
    ),
    "rest-of-a-message-lost": _plane(
        "channel",
        "                self._waiting.appendleft((data[sent:], ()))",
        "                pass",
    ),
    "sockets-sent-again": _plane(
        "channel", "appendleft((data[sent:], ()))", "appendleft((data[sent:], batch[0][1]))"
    ),
    "orphans-end": _plane(
        "worker_main",
        "elif self._rendezvous is not None:\n            self._reception =",
        "elif self._rendezvous is None:\n            self._reception =",
    ),
    "adopted-once-only": _plane(
        "worker_main",
        "        self._stop_waiting()\n        self._channel = self._open",
        "        self._stop_waiting()\n"
        "        self._rendezvous = None\n"
        "        self._channel = self._open",
    ),
    "sockets-not-inherited": _plane(
        "adoption", "found = self._sockets.pop((protocol, at), [])", "found = []"
    ),
    "untaken-sockets-kept": _plane(
        "adoption",
        "            for _, sock in socks:\n"
        "                sock.close()\n"
        "        self._sockets.clear()",
        "            socks.clear()\n        self._sockets.clear()",
    ),
    "predecessors-not-told": _plane(
        "adoption", "        self._dismiss(Drain(seconds))\n", "        pass\n"
    ),
    "held-port-not-released": _plane(
        "listener",
        "        self._hold.close()\n        self._hold = None",
        "        self._hold = None",
    ),
    "start-not-tried-again": _plane(
        "workers",
        "            self._start_again()\n            return\n",
        "            return\n",
    ),
    "starts-follow-without-a-pause": _plane(
        "workers",
        "            self._early_deaths = max(2, self._early_deaths + 1)\n",
        "            self._early_deaths = 0\n",
    ),
    "pauses-before-starts-are-long": _plane(
        "workers",
        "backoff_s(self._early_deaths - 1, _FIRST_PAUSE_S, _LONGEST_PAUSE_S)",
        "backoff_s(self._early_deaths - 1, _LONGEST_PAUSE_S, _LONGEST_PAUSE_S)",
    ),
    "pins-not-taken": _plane(
        "plane", "self._predecessors.take_pins(group.label)", "self._predecessors.take_pins('')"
    ),
    "pins-that-are-late-lost": _plane(
        "plane",
        "            predecessors.on_pins = self._send_all",
        "            pass",
    ),
    "late-predecessor-forgotten": _plane(
        "adoption", "            if self._order is not None:\n", "            if self is None:\n"
    ),
}
