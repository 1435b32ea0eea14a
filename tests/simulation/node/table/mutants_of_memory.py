"""Faults of what a steering takes over, remembers of its tables, and follows of its node."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

_TABLES, _NFTABLES = "kernel.nf_tables", "steering.nftables"

MUTANTS: Mapping[str, Mutant] = {
    "rules-of-new-chains-come-first": Mutant(
        "nft_table",
        "            *(one for one in before if isinstance(one, ListedRule) and one.chain "
        "not in gone),\n            *new_rules,\n",
        "            *new_rules,\n            *(one for one in before if isinstance(one, "
        "ListedRule) and one.chain not in gone),\n",
        _TABLES,
    ),
    "ports-of-an-earlier-run-are-not-guarded": Mutant(
        "steering",
        "        self._released.add(guard_key(f, port) for f, port in left.items() if port)\n",
        "",
        _NFTABLES,
    ),
    "flows-stay-after-a-clean-up": Mutant(
        "steering",
        "        self._forget_all(read_ports(listing.elements_of(SETS)) if listing else {})\n",
        "        self._forget_all({})\n",
        _NFTABLES,
    ),
    "kernel-path-of-an-earlier-run-stays": Mutant(
        "kernel_path",
        "        else:\n            self._table.remove()\n\n",
        "\n",
        _NFTABLES,
    ),
    "counters-that-were-repaired-go-on": Mutant(
        "kernel_path",
        "        self._counts.begin_anew(counted[key] for key in keys & counted.keys())\n",
        "",
        _NFTABLES,
    ),
    "counters-of-an-earlier-call-begin-again": Mutant(
        "kernel_path", "in repair.added - repair.earlier}", "in repair.added}", _NFTABLES
    ),
    "what-a-refused-repair-had-written-is-forgotten": Mutant(
        "kept_table", "        self._may_be_added.update(added)\n", "", _TABLES
    ),
    "endpoints-of-a-refused-change-are-forgotten": Mutant(
        "steering",
        "            if endpoints:\n                self._note_endpoints(frontend, "
        "(EndpointChoice(endpoints),))\n        super()",
        "            self._ended.pop(frontend, None)\n        super()",
        _NFTABLES,
    ),
    "parts-of-a-large-change-are-not-doubted": Mutant(
        "nft_table",
        "                self._watch.doubt()\n                raise\n\n    def remove",
        "                raise\n\n    def remove",
        _TABLES,
    ),
    "link-that-is-gone-is-listed": Mutant(
        "node_listings",
        "    if not is_same or len(parsed) != len(before):\n",
        "    if not is_same:\n",
        "kernel",
    ),
    "addresses-are-not-watched": Mutant(
        "interfaces",
        "rtnetlink.GROUP_LINK, rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6",
        "rtnetlink.GROUP_LINK, rtnetlink.GROUP_ADDRESS_6",
        "kernel",
    ),
    "port-released-again-is-open-too-early": Mutant(
        "programmer", "ended = self._earlier - self._recent", "ended = self._earlier", "steering"
    ),
    "chains-of-own-programs-are-not-followed": Mutant(
        "frontends",
        '_NAT_HOOKS = ("prerouting", "output")',
        '_NAT_HOOKS = ("prerouting",)',
        "filters",
    ),
}
