"""Faults that show when others change what a steering looks at: links, chains, connections."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    # -- links and addresses
    "links-of-an-interrupted-listing-are-current": Mutant(
        "pod_links",
        "links, routes, self._is_current = listed",
        "links, routes, self._is_current = *listed[:2], True",
        "filters",
    ),
    "address-that-is-gone-is-kept": Mutant(
        "interfaces", "if current and is_local(current):", "if current:", "kernel"
    ),
    "addresses-of-ipv6-are-not-watched": Mutant(
        "interfaces",
        ", rtnetlink.GROUP_ADDRESS_4, rtnetlink.GROUP_ADDRESS_6)",
        ", rtnetlink.GROUP_ADDRESS_4)",
        "kernel",
    ),
    "flows-to-a-lost-address-are-not-noted": Mutant(
        "programmer",
        "self._lost |= self._address.take_lost()",
        "self._address.take_lost()",
        "steering",
    ),
    "flows-to-a-lost-address-are-right": Mutant(
        "conntrack",
        "if leads_to(entry, self._now) and self._is_here(entry):",
        "if leads_to(entry, self._now):",
        "kernel",
    ),
    "address-that-came-and-went-is-not-noted": Mutant(
        "interfaces", "if one.kind == rtnetlink.DEL_ADDRESS)", "if not one)", "kernel"
    ),
    # -- chains of other programs
    "others-are-looked-at-once": Mutant(
        "frontends",
        "            if (generation, links) != self._seen:\n",
        "            if self._seen is _NOTHING:\n",
        "filters",
    ),
    "equal-priority-comes-first": Mutant(
        "frontends",
        "outcome.is_certain and chain.priority < priority",
        "outcome.is_certain and chain.priority <= priority",
        "filters",
    ),
    # -- clients' entries
    "syn-of-a-frontend-that-returns-stays": Mutant(
        "conntrack",
        "EntryFilter(socket.IPPROTO_TCP, without=IPS_SEEN_REPLY)]",
        "EntryFilter(socket.IPPROTO_TCP, without=IPS_SEEN_REPLY | 1 << 5)]",
        "kernel",
    ),
    "flow-to-an-endpoint-of-any-choice-stays": Mutant(
        "conntrack",
        "                return entry.answered_from in endpoints\n",
        "                if entry.answered_from in endpoints:\n                    return True\n",
        "kernel",
    ),
    "flows-of-a-target-that-is-off-stay": Mutant(
        "steering",
        "is_concerned = target.is_on or frontend.protocol is Protocol.UDP",
        "is_concerned = target.is_on",
        "steering.nftables",
    ),
    "repaired-frontends-keep-their-flows": Mutant(
        "steering",
        "        self._note_led((frontend, None) for frontend, _ in each_port(repair.added))\n",
        "",
        "steering.nftables",
    ),
    "frontend-that-returns-was-never-steered": Mutant(
        "programmer",
        "known if port is None else known | {port}",
        "frozenset() if port is None else known | {port}",
        "steering",
    ),
    "one-port-of-those-tried-is-known": Mutant(
        "programmer",
        "known if port is None else known | {port}",
        "known if port is None else frozenset({port})",
        "steering",
    ),
    # -- what is left
    "chooser-of-an-old-target-stays-in-use": Mutant(
        "kernel_rules",
        "            if old is not None:\n"
        "                self._uses[chooser_of(frontend, old)] -= 1\n"
        "            if target",
        "            if target",
        "steering.nftables",
    ),
    # -- answers
    "late-answer-counts-for-the-next-request": Mutant(
        "sockets",
        "            if number_of(block) in numbers:\n                return block\n",
        "            if number_of(block):\n                return block\n",
        "kernel.netlink",
    ),
    # -- ports
    "port-that-is-used-again-is-not-guarded": Mutant(
        "rules",
        "for k, n in uses_now.items() if n and not uses.get(k)))",
        "for k, n in uses_now.items() if n and k not in uses))",
        "steering.nftables",
    ),
}
