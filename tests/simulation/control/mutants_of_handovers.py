"""Faults of messages that were planted to measure the control half, and that it finds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")
_dataplane = partial(Mutant, package="dataplane")

MUTANTS: Mapping[str, Mutant] = {
    "orphan-timer-goes-on": _plane("worker_main", "            self._orphan_timer.cancel()\n", ""),
    "unread-descriptors-stay-open": _plane(
        "channel",
        "        while self._descriptors:\n            os.close(self._descriptors.popleft())\n",
        "        self._descriptors.clear()\n",
    ),
    "closed-listeners-count": _plane(
        "listeners", "            self._counts[worker] -= 1\n", "            pass\n"
    ),
    "open-ones-of-the-dead-are-kept": _plane(
        "group",
        "        self._open = _with(self._open, worker, None)\n",
        "",
    ),
    "successor-of-a-hung-one-may-hang": _plane(
        "workers", "        self._is_hung = False\n        self._merging", "        self._merging"
    ),
    "label-of-a-closed-group": _plane(
        "worker", "                del self._labelled[group.label]\n", "                pass\n"
    ),
    "network-that-changes-its-place": _plane(
        "plane", "if old.get(text) != place}", "if text not in old}"
    ),
    "no-stand-in-for-those-missing-before": _plane(
        "plane",
        "        self._workers[worker].ask()\n        self._find_stand_ins()\n",
        "        self._workers[worker].ask()\n",
    ),
    "relief-before-workers-have-applied": _plane(
        "plane",
        "            await wait()\n        await self.refresh()\n",
        "            await wait()\n",
    ),
    "another-stand-in-each-time": _plane(
        "stand_ins", "if missing in self._by_missing or not running:", "if not running:"
    ),
    "kept-change-is-never-forgotten": _plane(
        "merging",
        "            for changes in (self._waiting, self._kept):\n",
        "            for changes in (self._waiting,):\n",
    ),
    "end-of-a-worker-is-still-watched": _plane(
        "worker_process", "        self._loop.remove_reader(self._pidfd)\n", ""
    ),
    "refusing-port-isn't-held": _dataplane(
        "port_reservation",
        "    sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)\n",
        "    raise OSError\n",
    ),
    "moved-listener-stays-in-its-group": _plane(
        "listeners",
        "        self._leave_group(listener)\n        self._by_group[group] += (listener,)\n",
        "        self._by_group[group] += (listener,)\n",
    ),
    "group-closes-before-its-listeners": _plane(
        "plane",
        "        closed = self._listeners.close_group(group)\n        if self._groups",
        "        self._send_all(CloseGroup(group.number))\n"
        "        closed = self._listeners.close_group(group)\n        if self._groups",
    ),
    "former-endpoints-are-unknown": _plane(
        "group", "        self._former = tuple(former[excess:])\n", ""
    ),
    "relief-before-pins": Mutant(
        "hand_over",
        "            await predecessors.all_pins()\n",
        "            pass\n",
        package="agent",
    ),
    "opened-listener-is-unknown-to-what-waits": _plane(
        "merging",
        "            self._group_of[message.listener] = message.group\n        elif",
        "            pass\n        elif",
    ),
    "sockets-stay-when-predecessors-drain": _plane(
        "adoption",
        "        self._dismiss(Drain(seconds))\n        self.on_drain()\n",
        "        self._dismiss(Drain(seconds))\n",
    ),
    "places-of-the-dead-stay": _plane(
        "adoption", "for index in order_left(by_index)]", "for index in sorted(by_index)]"
    ),
}
