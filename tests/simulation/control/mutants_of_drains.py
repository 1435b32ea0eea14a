"""Mutants of drains, and of what a control process adopts: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ..mutant_table import Mutant

_plane = partial(Mutant, package="plane")
_dataplane = partial(Mutant, package="dataplane")

MUTANTS: Mapping[str, Mutant] = {
    "inherited-socket-isn't-shared": _plane(
        "listener",
        "                    share(sock, is_shared=is_shared)\n"
        "                if self._transparent:",
        "                    pass\n                if self._transparent:",
    ),
    "inherited-sockets-that-are-too-many-stay": _plane(
        "listener",
        "                if inherited is not None and inherited not in self.socks:\n"
        "                    inherited.close()\n",
        "                pass\n",
    ),
    "predecessor-that-hangs-up-is-lost": _plane(
        "adoption",
        "elif self._name and not (self.count or self.handed_over.done()):",
        "elif self._name and self is None:",
    ),
    "late-sockets-are-kept": _plane(
        "adoption", "        for worker in self._workers:\n            worker.be_late()\n", ""
    ),
    "predecessors-drain-for-half-the-time": _plane(
        "adoption",
        "        self._dismiss(Drain(seconds))\n",
        "        self._dismiss(Drain(seconds / 2))\n",
    ),
    "late-predecessors-have-no-time": _plane(
        "adoption",
        "            self.channel.send(self._order)\n            self.close()\n",
        "            self.channel.send(Drain(0.0))\n            self.close()\n",
    ),
    "late-predecessors-are-left-at-an-end": _plane(
        "adoption", "            await asyncio.wait(late, timeout=within_s)\n", "            pass\n"
    ),
    "predecessors-drain-when-they-have-handed-over": _plane(
        "adoption",
        "            self.handed_over.set_result(None)\n            self._timer = self._loop",
        "            self.handed_over.set_result(None)\n"
        "            self.channel.send(Drain(5.0))\n"
        "            self._timer = self._loop",
    ),
    "one-that-drains-ends-with-its-control-process": _plane(
        "worker_main",
        "        elif not self._is_draining:\n            self._end(1)",
        "        else:\n            self._end(0)",
    ),
    "one-that-drains-accepts": _plane(
        "worker",
        "        for listener in self._listeners.values():\n"
        "            self._close_socket(listener)\n"
        "        self._listeners.clear()\n"
        "        self._dataplane.drain",
        "        self._dataplane.drain",
    ),
    "one-that-dies-in-a-drain-is-replaced": _plane(
        "workers",
        "            self._note_drained(0)\n            return\n        self.restarts",
        "            self._note_drained(0)\n        self.restarts",
    ),
    "start-that-was-due-follows-in-a-drain": _plane(
        "workers",
        "        self._stop_timer()\n        self.drained",
        "        self.drained",
    ),
    "closed-group-resets-connections": _plane(
        "worker",
        "            group.update(Serving(handling=handling), self._dataplane.engine.clock())",
        "            group.update(Serving(handling=handling), self._dataplane.engine.clock())\n"
        "            self._dataplane.connections.reset_all()",
    ),
    "drain-lasts-to-its-end": _dataplane(
        "dataplane", "            self.connections.on_idle = end\n", "            pass\n"
    ),
    "drain-resets-at-half-time": _dataplane(
        "dataplane",
        "self.engine.loop.call_later(seconds, end)",
        "self.engine.loop.call_later(seconds / 2, end)",
    ),
}
