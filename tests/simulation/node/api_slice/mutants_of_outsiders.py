"""Mutants of what reads the API server, by an outsider: see ``mutant_table``."""

from __future__ import annotations

from collections.abc import Mapping

from ...mutant_table import Mutant

MUTANTS: Mapping[str, Mutant] = {
    "api-broken-list-goes-on-with-its-next-page": Mutant(
        "reflector",
        "        finally:\n            self._position.list_aborted()\n",
        "",
        package="sources.kubernetes",
    ),
    "api-addresses-of-nodes-make-no-snapshot": Mutant(
        "store",
        "others != (last.node, last.node_addresses) or",
        "self._node != last.node or",
        package="cluster",
    ),
}
