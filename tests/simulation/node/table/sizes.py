"""How much there is in the product's tables, to be compared with what a new run writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..nf_tables_state import DYNAMIC, Table

# A counter stays while its frontend is steered, a guard for some time after its last frontend.
_LONGER = ("counted4", "counted6", "guarded")
# A table is kept once it exists, where a new run may have no need of it.
_OF_LINKS = ("links", "same_link")
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


def differing(before: Counter[str], now: Counter[str], *, has_unseen: bool) -> dict[str, object]:
    """Return which sizes differ, with both.

    Args:
        now: Of a new run.
        has_unseen: Whether links have changed of which only a new run knows.
    """
    is_needed = any(name.endswith(_OF_LINKS) for name in now)
    return {
        name: (before[name], now[name])
        for name in sorted(before.keys() | now.keys())
        if before[name] != now[name]
        and not (name.endswith(_OF_LINKS) and (has_unseen or not is_needed))
    }
