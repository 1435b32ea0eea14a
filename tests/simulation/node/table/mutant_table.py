"""The table of mutants of steering by nftables: faults of tables, flows, events and recovery."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_steering = partial(Mutant, package="steering.nftables")
_tables = partial(Mutant, package="kernel.nf_tables")
_netlink = partial(Mutant, package="kernel.netlink")

MUTANTS: Mapping[str, Mutant] = {
    "ports-not-restored": Mutant(
        "programmer",
        "            _merge(applied, before)\n            with",
        "            with",
        "steering",
    ),
    "change-not-undone": Mutant(
        "programmer",
        "                self._restore(touched, before)\n",
        "                pass\n",
        "steering",
    ),
    "udp-not-stale": Mutant(
        "programmer",
        "if port is None or frontend.protocol is Protocol.UDP:",
        "if port is None:",
        "steering",
    ),
    "new-frontend-not-stale": Mutant(
        "programmer",
        "if port is None or frontend.protocol is Protocol.UDP:",
        "if frontend.protocol is Protocol.UDP:",
        "steering",
    ),
    "stale-forgotten-too-early": Mutant(
        "programmer",
        "            return\n        here =",
        "            return\n        stale, self._stale = self._stale, {}\n"
        "        self._stale = dict(list(stale.items())[:1])\n        here =",
        "steering",
    ),
    "gone-kept-in-apply": _steering(
        "steering",
        "            gone = dict.fromkeys(self._applied.keys() - ports.keys())\n",
        "            gone = dict.fromkeys(())\n",
    ),
    "released-at-once": Mutant(
        "programmer",
        "        return iter(self._recent | self._earlier)",
        "        return iter(self._recent)",
        "steering",
    ),
    "released-never": Mutant(
        "programmer",
        "        self._earlier, self._recent = self._recent, set()\n",
        "        self._recent = set()\n",
        "steering",
    ),
    "targets-not-restored": _steering(
        "steering",
        "            self._set_targets(before)\n            applied =",
        "            applied =",
    ),
    "path-not-undone": _steering(
        "steering",
        "            self._kernel_path.undo(before, [f for f in touched if f not in applied])\n",
        "",
    ),
    "flows-to-endpoints-stay": _steering(
        "steering",
        "target.choices != self._choices(frontend):\n"
        "                self._note_led([(frontend, target.port)])\n",
        "target.choices != self._choices(frontend):\n                pass\n",
    ),
    "ended-not-noted": _steering(
        "steering",
        "                self._note_endpoints(frontend, target.choices)\n                # It may",
        "                # It may",
    ),
    "endpoints-of-an-earlier-run": _steering(
        "steering",
        "            self._kernel_path.load(targets, self._note_left)\n",
        "            self._kernel_path.load(targets)\n",
    ),
    "refuse-port-of-an-earlier-run": _steering(
        "steering",
        "refuse_ports = {self._refuse_port, self._earlier_refuse_port}",
        "refuse_ports = {self._refuse_port}",
    ),
    "repair-without-paths": _steering(
        "steering", "count = repair.count + self._kernel_path.repair()", "count = repair.count"
    ),
    "repaired-flows-stay": _steering(
        "steering",
        "        self._note_led((frontend, None) for frontend, _ in each_port(repair.added))\n"
        "        self._note_led(each_port(repair.removed))\n",
        "        pass\n",
    ),
    "address-not-followed": _steering(
        "steering",
        "        self._follow_address()\n        self._forget",
        "        self._forget",
    ),
    "uses-not-counted-back": _steering("rules", "            use(frontend, old, -1)\n", ""),
    "guard-without-new-ports": _steering(
        "rules",
        "for k, n in uses_now.items() if n and not uses.get(k)",
        "for k, n in uses_now.items() if n and uses.get(k)",
    ),
    "other-sockets-admitted": _steering(
        "rules",
        '            table.add_rule("input", packets + used + to_other_socket)\n',
        "            pass\n",
    ),
    "chooser-shared-by-affinities": _steering(
        "choosers",
        "return Chooser(frontend.family, counts, target.affinity, tuple(endpoints), "
        "target.by_client)",
        "return Chooser(frontend.family, counts, target.affinity, tuple(endpoints))",
    ),
    "pins-of-others": _steering(
        "kernel_rules",
        "            pins = {e: had.get(e) or next(fresh) for e in endpoints}\n",
        "            pins = {e: next(fresh) for e in endpoints}\n",
    ),
    "second-choice-from-the-first": _steering(
        "choosers", "        first += count\n    if chooser", "        first += 0\n    if chooser"
    ),
    "chooser-left-in-use": _steering(
        "kernel_rules",
        "            if self._uses[chooser] + by == 0 and chooser in self.choosers:",
        "            if by < 0 and chooser in self.choosers:",
    ),
    "difference-without-the-old": _steering(
        "kernel_rules",
        "            change.removed |= before - now\n",
        "            change.removed |= before - now if new is None else set()\n",
    ),
    "counted-again": _steering(
        "kernel_path", "self._forgotten = self._counts.forget(gone)", "pass"
    ),
    "links-not-followed": _steering(
        "kernel_path", "        self._follow_links()\n        return count", "        return count"
    ),
    "touched-without-name": _tables(
        "nft_table",
        "                self._is_touched |= (event.family, event.table) == self._table\n",
        "                self._is_touched |= False\n",
    ),
    "lost-events-ignored": _tables("nft_table", "        self._is_touched |= batch.has_lost\n", ""),
    "settled-after-the-look": _tables(
        "nft_table",
        "        self._watch.settle()\n        return self.look(elements_of)",
        "        listing = self.look(elements_of)\n        self._watch.settle()\n"
        "        return listing",
    ),
    "no-doubt": _tables(
        "nft_table",
        "                    if not exc.is_certain:\n                        self._watch.doubt()\n",
        "",
    ),
    "shortage-taken-for-a-lack": _tables(
        "kept_table", "or exc.code not in _LACKS:", "or exc.code == 12:"
    ),
    "definitions-not-compared": _tables(
        "kept_table",
        "definitions is not None and definitions == self._written",
        "definitions is not None",
    ),
    "removed-not-written": _tables(
        "kept_table",
        "        return removed, added, definitions\n",
        "        return set(), added, definitions\n",
    ),
    "gone-chains-remembered": _tables(
        "nft_table",
        "isinstance(one, ListedChain) and one.name not in gone",
        "isinstance(one, ListedChain)",
    ),
    "listed-once": _tables(
        "ruleset",
        "            if listing == before:\n                break",
        "            break",
    ),
    "interruption-ignored": _netlink(
        "sockets",
        "not any(one.flags & INTERRUPTED for one in found)",
        "not any(one.flags & INTERRUPTED for one in found[:1])",
    ),
    "answer-of-another": _netlink(
        "sockets", "            if number_of(block) in numbers:", "            if block:"
    ),
    "networks-of-choices-ignored": Mutant(
        "conntrack",
        "            if networks is None or contains(networks, unpack_ip(entry.client)):",
        "            if networks is not None or entry:",
        "kernel",
    ),
    "number-of-entry-ignored": Mutant(
        "ctnetlink",
        "        if kind in (CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE)",
        "        if kind in (CTA_ID, CTA_ZONE)",
        "kernel",
    ),
    "ipv6-address-in-the-filter": Mutant(
        "ctnetlink", "    if wanted.ip and version == 4:", "    if wanted.ip:", "kernel"
    ),
    "answered-connections-removed": Mutant(
        "conntrack", "and not is_answered(entry) and", "and", "kernel"
    ),
    "reset-connections-stay": Mutant(
        "conntrack", "[*unanswered, *reset]", "[*unanswered]", "kernel"
    ),
}
