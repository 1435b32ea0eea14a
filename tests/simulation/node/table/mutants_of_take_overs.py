"""Faults of a start that finds what a run with another steering has left: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_leftovers = partial(Mutant, "selection", package="steering")
_local = partial(Mutant, package="steering.local")

MUTANTS: Mapping[str, Mutant] = {
    "kernel-path-alone-is-no-leftover": Mutant(
        "names",
        "_labels_in(list_tables(), STEERING_TABLES, KERNEL_PATH_TABLES)",
        "_labels_in(list_tables(), STEERING_TABLES)",
        "steering",
    ),
    "leftovers-of-the-chosen-steering-alone": _leftovers(
        "        if kind.name == chosen:\n", "        if kind.name != chosen:\n"
    ),
    "refused-removal-is-only-said": _leftovers(
        '            raise SteeringError(\n                f"cannot remove leftovers of',
        "            unseen.append(str(exc))\n            continue\n"
        '            raise SteeringError(\n                f"cannot remove leftovers of',
    ),
    "what-cannot-be-read-is-not-said": _leftovers("            unseen.append(str(exc))\n", ""),
    "leftovers-of-the-proxy-without-a-name": _leftovers(
        "kind(SteeringFacts(proxy_name=label))", "kind(SteeringFacts())"
    ),
    "leftovers-by-the-beginning-of-a-name": _leftovers(
        "return label in nftables_labels_here()",
        "return any(one.startswith(label) for one in nftables_labels_here())",
    ),
    "routes-of-all-proxies-are-removed": _local(
        "guard",
        "removed=sorted(route for route in ours if route.metric == self._owner)",
        "removed=sorted(ours)",
    ),
    "guard-is-removed-before-its-routes": _local(
        "guard",
        "        super().clean_up()\n        self._table.remove()\n",
        "        self._table.remove()\n        super().clean_up()\n",
    ),
    "guard-table-stays": _local(
        "guard",
        "        super().clean_up()\n        self._table.remove()\n",
        "        super().clean_up()\n",
    ),
    "routes-without-a-guard-are-no-leftover": _local(
        "kernel",
        "    owner = owner_number(proxy_name)\n    with",
        "    return False\n    owner = owner_number(proxy_name)\n    with",
    ),
    "kernel-path-is-not-removed": Mutant(
        "steering", "        self._kernel_path.remove()\n", "", "steering.nftables"
    ),
    "translated-flows-stay-where-local-begins": _local(
        "steering", "        self._new.update(", "        set().update("
    ),
    "failed-end-of-flows-is-not-tried-again": _local(
        "steering",
        "        self._forget_lingering()\n        self.forget_stale()\n",
        "        self._forget_lingering()\n",
    ),
    "addresses-are-routed-before-they-are-guarded": _local(
        "guard",
        "            self._remove_routes(removed)\n        self._table.change(",
        "            self._remove_routes(removed)\n        self._add_routes(added)\n"
        "        self._table.change(",
    ),
    "first-apply-leaves-surplus-routes": _local(
        "guard",
        "        self._tables.change(removed=sorted(surplus))\n",
        "        self._tables.change(removed=())\n",
    ),
    "refused-route-is-not-tried-again": _local(
        "steering", "% RETRY_EVERY == 0 and bool(", "% RETRY_EVERY == -1 and bool("
    ),
    "idle-frontend-lingers-for-good": _local(
        "steering", "        if self._lingering:\n", "        if not self._lingering:\n"
    ),
    "open-connection-of-an-earlier-run-loses-its-route": _local(
        "steering", "        self._lingering |= self._left()\n", ""
    ),
    "lingering-frontend-of-an-earlier-run-is-not-known": _local(
        "steering",
        "        return admitted | connected_at(self._guard.routed())\n",
        "        return admitted\n",
    ),
    "open-connection-loses-its-route": _local(
        "steering",
        "idle = self._lingering - connected_at({one.ip for one in self._lingering})",
        "idle = set(self._lingering)",
    ),
}
