"""Faults of copies, their timers and their bounds that were planted to measure the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")
_cluster = partial(Mutant, package="cluster")

MUTANTS: Mapping[str, Mutant] = {
    "api-slice-stays-with-its-former-service": _cluster(
        "store",
        "            self.delete_slice(item.key)\n        elif old is not None:",
        "            self._touched.add(old.service)\n        elif old is not None:",
    ),
    "api-endpoint-of-the-same-address-stays": _cluster(
        "store",
        "before if before == endpoint else endpoint",
        "before or endpoint",
    ),
    "api-unknown-addresses-are-written-as-none": _cluster(
        "encoding",
        "None if nodes is None else tuple(sorted(nodes))",
        "tuple(sorted(nodes or ()))",
    ),
    "api-timer-of-a-list-goes-on": _source(
        "reflector",
        "        finally:\n            noted.cancel()",
        "        finally:\n            pass",
    ),
    "api-long-watch-keeps-the-long-wait": _source(
        "reflector",
        "            if was_healthy or (self._has_events and failure is None):",
        "            if self._has_events and failure is None:",
    ),
    "api-object-with-room-stays-left-out": _source(
        "resources",
        "            self._shares.count(key[0], -1, -_size(item))\n\n    def delete",
        "            pass\n\n    def delete",
    ),
    "api-list-of-nodes-that-fails-waits-for-long": _source(
        "node_addresses",
        "await self._pause(_RETRY_S)",
        "await self._pause(EVERY_S)",
    ),
    "api-series-ends-with-what-is-owed": _source(
        "events",
        "elif not known.is_owed and now - known.last > SERIES_END_S:",
        "elif now - known.last > SERIES_END_S:",
    ),
    "api-list-that-ends-early-is-whole": _source(
        "list_body",
        "if not chunk and self._next is not _Next.NOTHING:",
        "if not chunk and self._next is _Next.LIST:",
    ),
    "api-addresses-of-nodes-wait-for-another-change": _source(
        "source",
        "        self._store.set_node_addresses(addresses)\n        self._changed()",
        "        self._store.set_node_addresses(addresses)",
    ),
}
