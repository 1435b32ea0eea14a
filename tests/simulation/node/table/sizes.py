"""How much there is in the product's tables, to be compared with what a new run writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..nf_tables_state import DYNAMIC, Table

# A counter stays while its frontend is steered, a guard for some time after its last frontend, and
# links are written even where a new run has no need of them.
_LONGER = ("counted4", "counted6", "guarded", "links", "same_link")
# It is jumped to in any case.
_ALWAYS = "source"


def sizes(tables: Iterable[Table]) -> Counter[str]:
    """Return the sizes of sets, and how many chains and rules there are for ways of choosing."""
    found: Counter[str] = Counter()
    for table in tables:
        for one in table.sets.values():
            if one.is_anonymous:
                found[f"{table.name}: sets of rules"] += 1
            elif not one.flags & DYNAMIC and one.name not in _LONGER:
                found[f"{table.name}: {one.name}"] += len(one.elements)
        for chain in table.chains.values():
            if chain.hook is None and chain.name != _ALWAYS:
                found[f"{table.name}: chains"] += 1
                found[f"{table.name}: rules"] += len(chain.rules)
    return found
