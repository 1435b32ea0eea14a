"""Faults of what a table leads to, and of what is counted: planted to measure what is found."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

_NFTABLES = "steering.nftables"

MUTANTS: Mapping[str, Mutant] = {
    "affinity-lasts-for-three-hours": Mutant(
        "choosers",
        "            timeout_s = chooser.affinity.timeout_s\n",
        "            timeout_s = 10_800\n",
        _NFTABLES,
    ),
    "reset-connections-of-many-frontends-stay": Mutant(
        "conntrack",
        "    if len(frontends) <= FULL_LISTING_ABOVE:\n"
        "        return [EntryFilter(protocol, *dialled) for dialled in frontends]\n"
        "    return [EntryFilter(protocol)]",
        "    return [EntryFilter(protocol, *dialled) for dialled in list(frontends)[:2]]",
        "kernel",
    ),
    "undone-change-counts-from-zero": Mutant(
        "kernel_path", "        self._counts.restore(self._forgotten)\n", "", _NFTABLES
    ),
    "numbers-of-gone-endpoints-are-given-at-once": Mutant(
        "kernel_rules",
        "        self._next += count\n        return number",
        "        self._next = number + 1\n        return number",
        _NFTABLES,
    ),
    "same-link-is-not-masqueraded": Mutant(
        "kernel_rules",
        '{(SAME_LINK, one + one, b"") for one in packed}',
        '{(SAME_LINK, one + one, b"") for one in packed[:1]}',
        _NFTABLES,
    ),
    "ip6-hashes-as-ip4": Mutant(
        "choosers",
        "x.pick_by(_ENDPOINT, source.width, count",
        "x.pick_by(_ENDPOINT, 4, count",
        _NFTABLES,
    ),
}
