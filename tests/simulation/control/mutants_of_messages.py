"""Mutants of what waits, is read late, or is passed on between processes: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")

MUTANTS: Mapping[str, Mutant] = {
    "change-that-waits-isn't-kept": _plane(
        "merging",
        "            if left in self._waiting and left not in self._kept:\n"
        "                self._kept[left] = self._waiting.pop(left)\n",
        "            pass\n",
    ),
    "move-isn't-known-to-what-waits": _plane(
        "merging",
        "                self._group_of[message.listener] = message.group\n            if left",
        "                pass\n            if left",
    ),
    "stand-in-keeps-the-group": _plane(
        "listeners",
        "        for _, holder, number in self._holders(listener):\n"
        "            self._send(holder, MoveListener(number, group.number))\n",
        "        for holder in listener.workers:\n"
        "            self._send(holder, MoveListener(listener.number, group.number))\n",
    ),
    "new-listener-without-stand-in": _plane(
        "listeners",
        "        for worker, holder, number in self._holders(listener):\n            try:",
        "        own = [(worker, worker, listener.number) for worker in listener.workers]\n"
        "        for worker, holder, number in own:\n            try:",
    ),
    "stand-in-serves-what-is-closed": _plane(
        "listeners",
        "        for _, holder, number in self._holders(listener):\n"
        "            self._send_closing(listener, holder, number)\n",
        "        for holder in listener.workers:\n"
        "            self._send_closing(listener, holder, listener.number)\n",
    ),
    "stand-in-with-wrong-number-of-what-is-missing": _plane(
        "stand_ins", "return None if number >= 0 else -number % workers", "return None"
    ),
    "start-timer-goes-on": _plane(
        "workers",
        "        self._stop_timer()\n        if self.link is not None:\n            self.link.h",
        "        if self.link is not None:\n            self.link.h",
    ),
    "open-connections-are-at-rest": _plane(
        "differences",
        "        self._is_open = self._is_open or counters.active != 0\n",
        "",
    ),
    "bytes-of-open-connections-wait": _plane(
        "worker", "        yield from self._dataplane.settle()\n", "        yield\n"
    ),
    "reports-for-the-next-control-process": _plane(
        "worker", "        self._slices, self._asked = None, 0\n", "        pass\n"
    ),
    "former-ejections-stay-shown": _plane(
        "differences", "        self._had_passing = bool(ejected or waiting.clients)\n", ""
    ),
    "reader-has-old-counters": _plane(
        "plane",
        "        owed = [waiting for waiting in asked if not waiting.done()]",
        "        owed = [waiting for waiting in asked[:-1] if not waiting.done()]",
    ),
    "reports-are-not-asked-for-again": _plane(
        "workers", "elif self.is_running and not self.asked and", "elif not self._reports and"
    ),
    "unknown-message-ends-an-adoption": _plane(
        "adoption", "            unknown=self._on_unknown,\n", ""
    ),
    "sockets-of-an-unknown-message-stay": _plane(
        "channel",
        "            for descriptor in descriptors:\n                os.close(descriptor)\n"
        "            if self._unknown",
        "            if self._unknown",
    ),
    "nonsense-is-survived": _plane(
        "worker_process", "            return\n        self.kill()\n", "            return\n"
    ),
    "sockets-in-the-order-of-connections": _plane(
        "adoption",
        "sorted(handed, key=itemgetter(0))",
        "sorted(handed, key=lambda _each: 0)",
    ),
    "waits-are-not-passed-on": _plane(
        "plane", "                self.on_waits(group)\n", "                pass\n"
    ),
    "returns-are-told-as-ejections": _plane(
        "plane",
        "note(group, message.endpoint, isinstance(message, Ejected))",
        "note(group, message.endpoint, True)",
    ),
}
