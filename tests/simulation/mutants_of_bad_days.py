"""Mutants as mistakes of a bad day: how clients get, keep and lose their endpoints."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "full-client-unread": Mutant(
        "tcp",
        "self.reactor.modify(self.client, READ_EVENTS | epoll.OUT)",
        "self.reactor.modify(self.client, epoll.OUT | epoll.ET)",
    ),
    "last-dial-given-up": Mutant(
        "tcp_dial",
        "{*(self.tried or ()), self.endpoint}",
        "{*(self.tried or ())}",
    ),
    "ejection-outlives-endpoint": Mutant(
        "ejection",
        "            del self.ejected[endpoint]\n            self._out.pop(endpoint, None)\n",
        "            del self.ejected[endpoint]\n",
        package="balance",
    ),
    "return-wakes-none": Mutant(
        "outcomes",
        "        self._balancers.restart(endpoint, now)\n        self._on_back()\n",
        "        self._balancers.restart(endpoint, now)\n",
    ),
    "dials-beyond-limit": Mutant(
        "loads",
        "self.is_tracked = handling.balance in _BY_LOAD or self.limit is not None",
        "self.is_tracked = handling.balance in _BY_LOAD",
    ),
    "outer-stays-ejected": Mutant(
        "split",
        "        ends = self.inner.answered(endpoint)\n"
        "        return self.outer.answered(endpoint) or ends",
        "        return self.inner.answered(endpoint) or self.outer.answered(endpoint)",
        package="balance",
    ),
    "outside-uses-all": Mutant(
        "balancers",
        "self._update(outer, serving.outside,",
        "self._update(outer, serving.endpoints,",
    ),
    "affinity-timeout-stale": Mutant(
        "balancer",
        "            self._affinity = AffinityTable(affinity_timeout_s, self._pins)\n"
        "        else:\n            self._affinity.timeout_s = affinity_timeout_s\n",
        "            self._affinity = AffinityTable(affinity_timeout_s, self._pins)\n",
        package="balance",
    ),
    "late-reset-unwatched": Mutant(
        "late_reset",
        "        connection.reactor.modify(direction.sink, epoll.OUT | epoll.ET)\n",
        "",
    ),
    "resume-stops-new-timer": Mutant(
        "descriptors",
        "        self._stop_timer()\n        waiting, self._waiting = self._waiting, []\n"
        "        for callback in waiting:\n            callback()\n",
        "        waiting, self._waiting = self._waiting, []\n"
        "        for callback in waiting:\n            callback()\n        self._stop_timer()\n",
    ),
    "hash-ignores-weights": Mutant(
        "source_hash",
        "if endpoints is not self._endpoints or self._version != self._weights.version:",
        "if endpoints is not self._endpoints:",
        package="balance",
    ),
    "failed-probe-kept": Mutant(
        "probes",
        "        requests = self._under_way.pop(endpoint)\n        if failed is None:\n",
        "        if failed is None:\n            requests = self._under_way.pop(endpoint)\n",
    ),
    "descriptor-before-the-answer": Mutant(
        "probes",
        "        requests = self._under_way.pop(endpoint)\n",
        "        requests = self._under_way.pop(endpoint)\n"
        "        self._engine.descriptors.give(1)\n        self._engine.descriptors.take(1)\n",
    ),
    "spills-over-when-full": Mutant(
        "balancer",
        "            if self.is_full is not None and self._has_full(candidates, skip):\n"
        "                return None\n",
        "",
        package="balance",
    ),
    "answered-dial-given-up": Mutant(
        "tcp_dial",
        "        if self.sock is not None and is_connected(self.sock):\n"
        "            # The loop was held up: the event is still to come, and until then the dial "
        "counts.\n            return False\n",
        "",
    ),
    "waited-client-ends-by-rst": Mutant(
        "tcp_dial",
        "            reset_no_more(connection.client)\n",
        "",
    ),
    "client-has-a-fourth-dial": Mutant(
        "tuning", "return 3 * self.connect_timeout_s", "return 4 * self.connect_timeout_s"
    ),
    "deadline-runs-while-waiting": Mutant(
        "tcp_dial",
        "        self._owner.client_deadlines.stop(self)\n        self.endpoint = None\n",
        "        self.endpoint = None\n",
    ),
    "dialled-as-it-left-stays": Mutant(
        "removals",
        "        if connection.up is None:\n            self._left.setdefault((group, endpoint), "
        "left._replace(due=self._clock() + _AGAIN_S))\n        else:\n",
        "        if connection.up is not None:\n",
    ),
    "slow-start-gets-longer-for-all": Mutant(
        "weights",
        "        if seconds != self.seconds:\n            self.shares(now)\n",
        "        if seconds != self.seconds:\n",
        package="balance",
    ),
    "slow-start-left-at-zero": Mutant(
        "weights",
        "        if self._shares and not slow_start_s:\n            self._slow_start.keep(())\n"
        "            self._look(0.0)\n",
        "",
        package="balance",
    ),
    "ended-pair-forgotten": Mutant(
        "client_address",
        "        self._open.remove(client, endpoint)\n"
        "        self._ended.note(client, endpoint, now)\n",
        "        self._open.remove(client, endpoint)\n",
    ),
    "drained-twice": Mutant(
        "dataplane",
        "            self.connections.on_idle = None\n            self._stop_drain_timer()\n",
        "            self._stop_drain_timer()\n",
    ),
    "drain-lasts-too-long": Mutant(
        "dataplane",
        "            self._drain_timer = self.engine.loop.call_later(seconds, end)\n",
        "            self._drain_timer = self.engine.loop.call_later(seconds + 0.1, end)\n",
    ),
    "lowered-places-overrun": Mutant(
        "waiting_room",
        "            while len(clients) >= share:\n",
        "            if len(clients) >= share:\n",
    ),
    "hold-never-ends": Mutant(
        "memory_pressure",
        "        self._descriptors.hold(None)\n",
        "",
    ),
    "probe-answers-one-group": Mutant(
        "probes",
        "self.groups.setdefault(group, client)",
        "self.groups or self.groups.setdefault(group, client)",
    ),
    "ejected-at-limit-refuses": Mutant(
        "balancer",
        "for e in itertools.chain(self._candidates(now), self._in_turn())",
        "for e in self._candidates(now)",
        package="balance",
    ),
    "pressing-client-of-all-ports": Mutant(
        "shedding",
        "group not in (None, connection.group)",
        "group is not connection.group",
    ),
    "header-deadline-kept": Mutant(
        "accepted_headers",
        "        self._deadlines.stop(connection)\n        self._engine.reactor.unregister(",
        "        self._engine.reactor.unregister(",
    ),
}
