"""Mutants of choices of endpoints: whom a client may use, whose turn it is, how long it waits."""

from __future__ import annotations

from collections.abc import Mapping

from .mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    # -- turns and shares --------------------------------------------------------------------------
    "turn-skips-one": Mutant(
        "round_robin",
        "            index = self._next % count\n            self._next = index + 1\n",
        "            index = self._next % count\n            self._next = index + 2\n",
        "balance",
    ),
    "turn-lost-beside-an-ejection": Mutant(
        "round_robin",
        "                self._next = index + 1\n                return endpoints[index]\n"
        "        return None\n\n\nclass",
        "                return endpoints[index]\n        return None\n\n\nclass",
        "balance",
    ),
    "returned-endpoints-not-listed": Mutant(
        "level",
        "        if self._returned and (",
        "        if not self._out and self._returned and (",
        "balance",
    ),
    "turns-of-the-first-half": Mutant(
        "round_robin",
        "            index = self._next % count\n            self._next = index + 1\n",
        "            index = self._next % (count if count <= 16 else count // 2)\n"
        "            self._next = index + 1\n",
        "balance",
    ),
    "weights-without-effect": Mutant(
        "round_robin",
        "following = (self._time + 1 / weight,",
        "following = (self._time + 1.0,",
        "balance",
    ),
    "most-connections": Mutant(
        "least_connections",
        "            if best < 0 or load < best_load:\n",
        "            if best < 0 or load > best_load:\n",
        "balance",
    ),
    "load-without-weight": Mutant(
        "least_connections",
        "self._load(endpoint) / weight_of(endpoint), turns[endpoint]",
        "self._load(endpoint), turns[endpoint]",
        "balance",
    ),
    "more-loaded-of-two": Mutant(
        "random_choice",
        "candidates[second + (second >= first)]\n"
        "        return other if self._load(other) < self._load(one) else one",
        "candidates[second + (second >= first)]\n"
        "        return other if self._load(other) > self._load(one) else one",
        "balance",
    ),
    "chance-without-choice": Mutant(
        "random_choice",
        "return candidates[self._rng.randrange(len(candidates))] if candidates else None",
        "return candidates[0] if candidates else None",
        "balance",
    ),
    "hash-of-former-endpoints": Mutant(
        "source_hash",
        "        if endpoints is not self._endpoints or self._version",
        "        if not self._endpoints or self._version",
        "balance",
    ),
    "hash-by-the-last-choice": Mutant(
        "source_hash",
        "            for endpoint in known[looked:]:",
        "            for endpoint in reversed(known[looked:]):",
        "balance",
    ),
    "slow-start-at-full-speed": Mutant(
        "weights",
        "return {e: max(FLOOR, passed[e] / self.seconds) for e in self._began}",
        "return {e: 1.0 for e in self._began}",
        "balance",
    ),
    "slow-start-of-all": Mutant(
        "balancers",
        "self._weights.begin(serving.newcomers(frozenset(old.all_endpoints)), now)",
        "self._weights.begin(serving.newcomers(()) or serving.all_endpoints[:1], now)",
    ),
    "place-kept-for-another-strategy": Mutant(
        "balancers",
        "            balance = Balance.LEAST_CONNECTIONS\n",
        "            balance = Balance.RANDOM\n",
    ),
    # -- who may be used ---------------------------------------------------------------------------
    "sides-of-before": Mutant(
        "balancers",
        "self.current = SplitBalancer(inner, outer, serving.inside)",
        "self.current = SplitBalancer(inner, outer, old.inside or serving.inside)",
    ),
    "outside-not-updated": Mutant(
        "balancers",
        "                self._update(outer, serving.outside, is_other_strategy=is_other_strategy)",
        "                pass",
    ),
    "outside-may-use-all": Mutant(
        "balancers",
        "                outer = self._make(serving.outside)",
        "                outer = self._make(serving.endpoints)",
    ),
    "failure-concerns-one-side": Mutant(
        "split",
        "return self.outer.failed(endpoint, now, is_silent=is_silent) or begins",
        "return begins",
        "balance",
    ),
    "standbys-of-before": Mutant(
        "balancers",
        "            endpoints,\n            affinity_timeout_s=self._serving.affinity_timeout_s,\n"
        "            standbys=dict(self._serving.standbys),\n        )\n\n",
        "            endpoints,\n            affinity_timeout_s=self._serving.affinity_timeout_s,\n"
        "        )\n\n",
    ),
    "one-dialled-twice": Mutant(
        "tcp_dial",
        "pick(self.address[0], now, tried=self.tried or ())",
        "pick(self.address[0], now, tried=list(self.tried or ())[-1:])",
    ),
    "two-endpoints-at-most": Mutant("balancer", "TRIED_MAX = 16", "TRIED_MAX = 2", "balance"),
    "full-endpoint-passed-over": Mutant(
        "balancer",
        "            if self.is_full is not None and self._has_full(candidates, skip):\n"
        "                return None\n",
        "",
        "balance",
    ),
    "limit-without-dials": Mutant(
        "loads",
        "return self._table.counters_of(endpoint).active + self._dialling.get(endpoint, 0)",
        "return self._table.counters_of(endpoint).active",
    ),
    "limit-of-before": Mutant(
        "loads",
        "        self.limit = self._share_of(handling.max_connections)\n        self.is_tracked",
        "        self.limit = self.limit or self._share_of(handling.max_connections)\n"
        "        self.is_tracked",
    ),
    # -- affinity ----------------------------------------------------------------------------------
    "pin-for-twice-as-long": Mutant(
        "affinity", "now - used >= self.timeout_s", "now - used >= 2 * self.timeout_s", "balance"
    ),
    "pin-for-half-as-long": Mutant(
        "affinity", "now - used >= self.timeout_s", "now - used >= self.timeout_s / 2", "balance"
    ),
    "pin-not-used-again": Mutant(
        "affinity",
        "        before = len(self._pins)\n        self._pins[client] = (endpoint, now)",
        "        before = len(self._pins)\n"
        "        known = self._pins.get(client, (endpoint, now))\n"
        "        self._pins[client] = known if known[0] == endpoint else (endpoint, now)",
        "balance",
    ),
    "pin-comes-before-priority": Mutant(
        "balancer",
        "            if pinned is not None and pinned in level.members:",
        "            if pinned is not None:",
        "balance",
    ),
    "pin-beyond-the-limit": Mutant(
        "balancer",
        "return None if self.is_full is not None and self.is_full(pinned) else pinned",
        "return pinned",
        "balance",
    ),
    "pin-to-an-ejected-one": Mutant(
        "balancer", "(pinned in tried or pinned in out)", "pinned in tried", "balance"
    ),
    "pins-lost-beside-a-limit": Mutant(
        "balancer",
        "            if self._affinity is not None:\n                self._affinity.pin(",
        "            if self._affinity is not None and self.is_full is None:\n"
        "                self._affinity.pin(",
        "balance",
    ),
    # -- ejections ---------------------------------------------------------------------------------
    "ejected-for-less": Mutant("ejection", "FIRST_S = 5.0", "FIRST_S = 3.0", "balance"),
    "ejected-for-longer": Mutant("ejection", "FIRST_S = 5.0", "FIRST_S = 8.0", "balance"),
    "ejection-not-doubled": Mutant(
        "ejection", "min(known.lasts_s * 2, LONGEST_S)", "min(known.lasts_s, LONGEST_S)", "balance"
    ),
    "many-probes": Mutant(
        "ejection",
        "            self._put_out(endpoint, known.probe_until)",
        "            pass",
        "balance",
    ),
    "probe-for-ever": Mutant("ejection", "PROBE_S = 3.0", "PROBE_S = 300.0", "balance"),
    "answer-lets-in-late": Mutant(
        "ejection",
        "            self._ends.clear()\n        self._let_in(endpoint)",
        "            self._ends.clear()",
        "balance",
    ),
    "returned-without-a-turn": Mutant(
        "level",
        "                self._returned[endpoint] = None\n\n",
        "                pass\n\n",
        "balance",
    ),
    "ejection-kept-by-one-that-left": Mutant(
        "balancer", "        self._ejections.keep(self._usable)\n", "", "balance"
    ),
    "quiet-also-after-a-refusal": Mutant(
        "ejection",
        "known is not None and known.is_silent and now < known.quiet_until",
        "known is not None and now < known.quiet_until",
        "balance",
    ),
    "never-quiet": Mutant(
        "ejection",
        "known is not None and known.is_silent and now < known.quiet_until",
        "known is None and now < 0",
        "balance",
    ),
    "late-silence-ejects": Mutant(
        "tcp_dial", "is_client_specific=is_denied or is_over", "is_client_specific=is_denied"
    ),
    "return-not-reported": Mutant(
        "outcomes",
        "                self._log_return(endpoint, is_last=not lines.left)\n"
        "            if self.news is not None:\n",
        "                self._log_return(endpoint, is_last=not lines.left)\n"
        "            if self.news is None:\n",
    ),
    "refusal-not-reported": Mutant(
        "outcomes",
        "            if self.news is not None:\n                self.news.ejected(",
        "            if self.news is not None and is_silent:\n                self.news.ejected(",
    ),
    "return-elsewhere-resumes-none": Mutant(
        "outcomes", "        self._on_back()\n", "        pass\n"
    ),
    # -- addresses of clients ----------------------------------------------------------------------
    "denied-pair-forgotten": Mutant(
        "probes",
        "            self._pairs.note(client, endpoint, now)\n",
        "            pass\n",
    ),
    "no-probe": Mutant(
        "tcp_dial",
        "                probes.request(self.group, client, self.endpoint)",
        "                pass",
    ),
    "silence-answers-a-probe": Mutant(
        "probes",
        "        if failed is None:\n            self._answered(endpoint, requests)\n",
        "        self._answered(endpoint, requests)\n",
    ),
    "probe-of-one-that-left": Mutant(
        "probes",
        "        if endpoint not in group.serving.all_endpoints:\n            return\n",
        "",
    ),
    "node-address-for-a-denied-client": Mutant(
        "client_address",
        "                if not has_answered:\n                    return sock, number\n",
        "",
    ),
    "address-kept-against-the-annotation": Mutant(
        "tcp_listener",
        "            connection.may_preserve = keeps_clients and not is_self",
        "            connection.may_preserve = not is_self",
    ),
    # -- time and waits ----------------------------------------------------------------------------
    "no-fail-over-from-silence": Mutant(
        "tcp_dial",
        "        if not self.group.balancers.current.has_more(",
        "        if self.group.balancers.current.has_more(",
    ),
    "client-without-a-deadline": Mutant(
        "tcp_dial",
        "            self._owner.client_deadlines.start(self, now)\n        endpoint =",
        "        endpoint =",
    ),
    "free-place-not-given": Mutant(
        "waiting_room",
        "            self._allowance = min(WINDOW, self._allowance + 1)\n",
        "",
    ),
    "last-comes-first": Mutant(
        "waiting_room", "self._pass.rest.popleft()", "self._pass.rest.pop()"
    ),
    "newcomers-overtake": Mutant(
        "tcp_dial",
        "return room.is_queueing and not self.is_waiting and self._wait(is_at_limit=True)",
        "return False and room.is_queueing",
    ),
    "waits-half-as-long": Mutant(
        "waiting_room",
        "self._reactor.now - self._hold.seconds, BATCH",
        "self._reactor.now - self._hold.seconds / 2, BATCH",
    ),
    "newest-loses-its-place": Mutant(
        "waiting_clients",
        "return next(iter(self._places[client]))",
        "return next(reversed(self._places[client]))",
    ),
    "smallest-loses-a-place": Mutant(
        "waiting_clients",
        "return next(iter(self.largest))",
        "return next(iter(self._holders[min(self._holders)]))",
    ),
    "update-resumes-none": Mutant(
        "endpoint_group",
        "        if self.waiting_room is not None:\n"
        "            self.waiting_room.update(serving.handling.waits, "
        "is_uniform=serving.is_uniform)",
        "        if self.waiting_room is not None and serving.handling != old.handling:\n"
        "            self.waiting_room.update(serving.handling.waits, "
        "is_uniform=serving.is_uniform)",
    ),
    "answer-lets-none-follow": Mutant(
        "waiting_room", "            self._allowance = WINDOW\n", "            pass\n"
    ),
    "demand-not-reported": Mutant(
        "endpoint_group", "            news.waiting()\n", "            pass\n"
    ),
    # -- endpoints that leave ----------------------------------------------------------------------
    "removal-twice-as-late": Mutant(
        "removals", "_Left(at, since + seconds)", "_Left(at, since + 2 * seconds)"
    ),
    "removal-forgets-the-moment": Mutant("removals", "known.get(endpoint, now)", "now"),
    "standby-never-leaves": Mutant(
        "serving",
        "return tuple(e for e in endpoints if standbys.get(e, 0) == first)",
        "return tuple(e for e in endpoints if standbys.get(e, 0) >= first)",
        "model",
    ),
    "gone-on-one-side-stays": Mutant(
        "serving",
        "        gone = [o - n for o, n in zip(olds, news, strict=True)]\n",
        "        gone = [(olds[0] | olds[1]) - (news[0] | news[1])]\n",
        "model",
    ),
    "silence-isnt-reported": Mutant(
        "outcomes",
        "self.news.ejected(endpoint, is_silent=is_silent)",
        "self.news.ejected(endpoint, is_silent=False)",
    ),
    "prolonged-ejection-isnt-reported": Mutant(
        "ejection",
        "        self._put_out(endpoint, known.until)\n        return True\n",
        "        self._put_out(endpoint, known.until)\n        return False\n",
        "balance",
    ),
}
"""By name."""
