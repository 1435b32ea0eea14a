"""Mutants of how TCP connections end and of what is counted: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "half-closed-as-open": Mutant(
        "ageing",
        "self._half_closed_s if is_half_closed else self._idle_s",
        "self._idle_s",
    ),
    "half-closed-by-both": Mutant(
        "ageing",
        "up.is_ended or down.is_ended or up.is_broken or down.is_broken",
        "(up.is_ended and down.is_ended) or up.is_broken or down.is_broken",
    ),
    "half-closed-counted-as-idle": Mutant(
        "ageing", "ended_idle += not is_half_closed", "ended_idle += 1"
    ),
    "answers-do-not-count-as-moving": Mutant(
        "ageing", "moved = up.bytes_moved + down.bytes_moved", "moved = up.bytes_moved"
    ),
    "idle-since-the-first-look": Mutant(
        "ageing",
        "        connection.seen_moved = moved\n        connection.seen_moving_at = now",
        "        connection.seen_moved = moved\n"
        "        connection.seen_moving_at = connection.seen_moving_at or now",
    ),
    "reset-by-the-other-side": Mutant(
        "tcp_state",
        "is_by_client = is_connected(endpoint) or not is_connected(client)",
        "is_by_client = is_connected(client)",
        "kernel",
    ),
    "end-by-the-last-side": Mutant(
        "tcp",
        "by = _BY_ENDPOINT if direction is up else _BY_CLIENT",
        "by = _BY_CLIENT if direction is up else _BY_ENDPOINT",
    ),
    "unheard-end-by-client": Mutant(
        "tcp",
        "            by = _BY_ENDPOINT\n        return ConnectionFacts",
        "            by = _BY_CLIENT\n        return ConnectionFacts",
    ),
    "clients-of-flows-stay": Mutant(
        "flow_table",
        "            remove_from(self._of, holder, flow)\n",
        "            del self._of[holder][flow]\n",
        "policy",
    ),
    "flows-of-clients-stay-counted": Mutant(
        "flow_table",
        "            del self._counts[holder]",
        "            self._counts[holder] = 0",
        "policy",
    ),
    "header-waits-for-the-client": Mutant(
        "tcp", "        up.pump()\n        send_at_once(up.sink)\n", "        up.pump()\n"
    ),
    "saved-for-each-failure": Mutant(
        "endpoint_group", "self.counters.saved += 1", "self.counters.saved += len(failed)"
    ),
    "failures-of-a-client-uncounted": Mutant(
        "outcomes",
        "        counters.count_failure(code)\n",
        "        if not is_client_specific:\n            counters.count_failure(code)\n",
    ),
    "shortage-as-a-failed-endpoint": Mutant(
        "outcomes", "        if failure in SHORTAGES:\n", "        if not failure:\n"
    ),
    "preserved-for-all": Mutant(
        "tcp", "            counters.preserved += 1\n", "            counters.preserved += 2\n"
    ),
    "progress-not-seen": Mutant(
        "late_reset",
        "waiting.progress, waiting.moved_at = progress, now",
        "waiting.progress = progress",
    ),
    "progress-by-what-is-left": Mutant(
        "late_reset", "return direction.bytes_moved, left_bytes", "return 0, left_bytes"
    ),
    "stuck-bytes-not-awaited": Mutant(
        "late_reset",
        "unread = direction.is_stuck or direction.is_waiting_turn",
        "unread = False",
    ),
    "waiting-bytes-not-awaited": Mutant(
        "late_reset",
        "direction.waiting_bytes + unacknowledged_bytes(direction.sink) + unread",
        "unacknowledged_bytes(direction.sink) + unread",
    ),
    "late-bytes-not-flushed": Mutant(
        "late_reset", "                direction.flush()\n", "                pass\n"
    ),
    "last-bytes-not-read": Mutant("tcp", "        down.pump_last()\n", ""),
    "fin-after-a-reset": Mutant(
        "relay",
        "        self.reads_to_empty = self.is_broken = True\n        self.has_fin = False\n"
        "        self._read_urgent_inline()\n        self.flush()",
        "        self.reads_to_empty = True\n        self.has_fin = False\n"
        "        self._read_urgent_inline()\n        self.flush()",
    ),
    "reset-for-the-client-only": Mutant(
        "tcp",
        "            if as_reset:\n                reset_on_close(up.sink)",
        "            if not up:\n                reset_on_close(up.sink)",
    ),
    "evictions-of-listeners-uncounted": Mutant(
        "shedding",
        "    counters.evicted += 1\n",
        "    counters.evicted += connection.up is not None\n",
    ),
    "owed-by-what-was-heard": Mutant(
        "endings", "since_sent_s(up.sink) >= least_s", "since_sent_s(up.source) >= least_s"
    ),
    "waited-since-the-dial": Mutant(
        "tcp",
        "waited_s=(exchange.answered_at if exchange else now) - self.started",
        "waited_s=now - self.started",
    ),
    "asked-at-the-answer": Mutant(
        "tcp", "            exchange.asked_at = self.reactor.now\n", "            pass\n"
    ),
    "end-of-an-endpoint-as-left": Mutant(
        "tcp",
        "end = EndFacts(_BY_ENDPOINT, has_asked=up.bytes_moved > 0, lasted_s=lasted_s)",
        "end = EndFacts(_BY_ENDPOINT, has_asked=False, lasted_s=lasted_s)",
    ),
    "spliced-reset-as-a-fin": Mutant(
        "relay",
        "        if self._spliced_error is not None:\n",
        "        if self._spliced_error == 0:\n",
    ),
    "given-up-by-the-old-clock": Mutant(
        "tcp",
        "            now = self.reactor.clock()\n            if exchange.code",
        "            if exchange.code",
    ),
    "drain-twice-as-long": Mutant(
        "dataplane",
        "self.engine.loop.call_later(seconds, end)",
        "self.engine.loop.call_later(2 * seconds, end)",
    ),
    "connect-times-from-the-dial": Mutant(
        "tcp",
        "group.connect_times.add(now - self.started)",
        "group.connect_times.add(now - (dial.began_at or now))",
    ),
    "newest-evicted-first": Mutant(
        "shares",
        "return heapq.nsmallest(count, connections, key=lambda c: c.idle_since(now))",
        "return heapq.nlargest(count, connections, key=lambda c: c.idle_since(now))",
        "policy",
    ),
    "flush-keeps-the-rest": Mutant(
        "relay",
        "            self.pending = self.pending[sent:]\n            return\n",
        "            return\n",
    ),
    "room-for-the-client-unseen": Mutant(
        "tcp",
        "                self.reactor.modify(self.client, READ_EVENTS | epoll.OUT)\n",
        "                pass\n",
    ),
    "reset-of-a-silent-one-as-unanswered": Mutant(
        "exchange",
        "        if end.is_reset:\n            counters.resets += 1",
        "        if end.is_reset and end.has_answer:\n            counters.resets += 1",
        "facts",
    ),
    "patience-of-a-second-for-all": Mutant(
        "exchange", "silent_s - end.left_s >= PATIENCE_S", "silent_s >= PATIENCE_S", "facts"
    ),
    "records-of-the-fewest-give-way": Mutant(
        "record_ring",
        "self._records.pop(max(self._counted, key=len).pop()).takers",
        "self._records.pop(min(filter(None, self._counted), key=len).pop()).takers",
        "plane",
    ),
    "first-filter-has-all-the-room": Mutant(
        "record_ring",
        "self._limit = max(map(len, self._counted)) - 1",
        "self._limit = 0",
        "plane",
    ),
    "end-isnt-watched-once-it-was-saved": Mutant(
        "connection_log",
        "self._watch.has_room(scopes, client_ip, is_plain=is_plain)",
        "is_plain and self._watch.has_room(scopes, client_ip)",
    ),
    "client-that-resets-has-failed": Mutant(
        "connection", " and self.ended_by is not EndedBy.CLIENT:", ":", "facts"
    ),
    "none-is-slow-without-an-answer": Mutant(
        "connection",
        "self.duration_s if self.received_bytes or not self.endpoint else self.waited_s",
        "self.waited_s",
        "facts",
    ),
    "saved-isnt-noted": Mutant(
        "tcp", "            self.note(ConnectionEvent.SAVED)\n", "            pass\n"
    ),
    "source-told-as-it-may-be": Mutant(
        "tcp",
        'source="client" if dial is not None and dial.is_preserved else "node"',
        'source="client" if self.may_preserve else "node"',
    ),
}
"""By name."""
