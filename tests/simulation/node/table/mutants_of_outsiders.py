"""Mutants of steering by nftables, by an outsider: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "stale-flows-are-given-up-after-a-failure": Mutant(
        "steering",
        "            self._forget_stale()\n\n    def kernel_connections",
        "            self._forget_stale()\n        self._stale = {}\n\n    def kernel_connections",
        package="steering.nftables",
    ),
    "pins-end-with-each-change-of-endpoints": Mutant(
        "kernel_rules",
        "                had = {**self._pins(*place), **change.pins.get(place, {})}\n",
        "                had = change.pins.get(place, {})\n",
        package="steering.nftables",
    ),
    "flows-of-an-earlier-run-follow-no-rule": Mutant(
        "programmer",
        "        self._note_led(led.items())\n",
        "",
        package="steering",
    ),
}
