"""Mutants of who waits, and of who gives up a place: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "streams-are-evicted-first": Mutant(
        "flow_table",
        "for flows in (self._young, self._streams):\n            for flow in flows.of(holder)",
        "for flows in (self._streams, self._young):\n            for flow in flows.of(holder)",
        package="policy",
    ),
    "only-connection-is-reset": Mutant(
        "shares",
        "since = connection.idle_since(now) if is_only else connection.started",
        "since = connection.started",
        package="policy",
    ),
    "pause-with-room-is-never-over": Mutant(
        "descriptors",
        "            self._full_since = None\n            self._resume()\n\n    def take_for_flow",
        "            self._resume()\n\n    def take_for_flow",
    ),
    "pause-without-release-is-never-over": Mutant(
        "descriptors",
        "if self._full_since is None or now - self._waited_at > _PAUSE_GAP_S:",
        "if self._full_since is None:",
    ),
    "stalled-flow-counts-for-ever": Mutant(
        "udp",
        "        counters.stalled -= flow.conversation is not None and "
        "flow.conversation.is_stalled\n",
        "",
    ),
    "end-of-a-flow-wakes-none": Mutant(
        "udp",
        "        if makes_room and self.group.waiting_room is not None:\n"
        "            self.group.waiting_room.connection_ended()\n",
        "",
    ),
    "places-rounded-down": Mutant(
        "waiting_room",
        "-(-hold.connections // self._processes)",
        "max(1, hold.connections // self._processes)",
    ),
    "limit-of-all-workers": Mutant(
        "loads",
        "divmod(limit, self._processes)",
        "divmod(limit, 1)",
    ),
    "leaving-begins-anew": Mutant(
        "removals", "at = now if since is None else since.at", "at = now"
    ),
    "listener-stays-with-its-group": Mutant(
        "tcp_listener",
        "        self.settle()\n        self.group = group\n",
        "        self.settle()\n",
    ),
}
