"""Mutants of who waits, and of who gives up a place: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "latest-flow-is-evicted": Mutant(
        "flow_table",
        "            for flow in flows.of(holder)",
        "            for flow in reversed([*flows.of(holder)])",
        package="policy",
    ),
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
    "standby-stays-if-asked-for-later": Mutant(
        "removals", "{*left_at, *group.former_endpoints()}", "{*known, *group.former_endpoints()}"
    ),
    "returns-of-former-endpoints-stay": Mutant(
        "outcomes",
        "                self._failed.returned_at.pop(endpoint, None)\n",
        "                pass\n",
    ),
    "listener-stays-with-its-group": Mutant(
        "tcp_listener",
        "        self.settle()\n        self.group = group\n",
        "        self.settle()\n",
    ),
    "newest-pin-goes": Mutant(
        "affinity", "self._pins.popitem(last=False)", "self._pins.popitem()", "balance"
    ),
    "pins-of-the-smallest-go": Mutant(
        "affinity",
        "        same = self._by_size.largest\n",
        "        same = self._by_size._holders[min(self._by_size._holders)]\n",
        "balance",
    ),
    "used-pin-stays-the-oldest": Mutant(
        "affinity",
        "        self._pins[client] = (endpoint, now)\n        self._pins.move_to_end(client)\n"
        "        if len",
        "        self._pins[client] = (endpoint, now)\n        if len",
        "balance",
    ),
    "one-pin-fewer-than-the-bound": Mutant(
        "affinity",
        "if len(self) > self._max_pins:",
        "if len(self) >= self._max_pins:",
        "balance",
    ),
    "cleared-pins-stay-counted": Mutant(
        "affinity",
        'Idempotent."""\n        self._pins.clear()\n        self._tables.changed(self)\n',
        'Idempotent."""\n        self._pins.clear()\n',
        "balance",
    ),
    "connections-go-before-pins": Mutant(
        "shedding",
        "excess -= self._pins.free(excess) + len(self._pins) * PIN_BYTES",
        "excess -= self._pins.free(excess // 2)",
    ),
    "pairs-of-former-routes-stay": Mutant(
        "locality", "        self._pairs.clear()\n        before", "        before", "policy"
    ),
    "lengths-of-former-networks-stay": Mutant(
        "locality",
        "                    before = -1\n",
        "                    before -= 1\n",
        "policy",
    ),
}
