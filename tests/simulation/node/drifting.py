"""Changes that another program makes to the product's tables or to other tables."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..machine.nf_tables_others import Another, drop, translate_all
from ..machine.nf_tables_state import (
    DYNAMIC,
    MAP,
    OUTPUT,
    PREROUTING,
    Chain,
    Element,
    NftSet,
    Table,
)

LEFTOVER_PORT = 9
"""The target of another program's rule that is evaluated after the product's."""
DRIFTS = (
    "delete element", "change element", "add element", "flush set", "flush chain", "delete rule",
    "insert rule", "append rule", "policy", "delete table", "flush ruleset", "delete chain",
    "delete set", "replace table", "flush counted", "foreign table", "foreign nat",
    "no foreign table",
)  # fmt: skip
FOREIGN = ("foreign table", "foreign nat", "no foreign table")
"""The changes that don't affect the product's tables."""


def drift(name: str, number: int, another: Another, own: list[Table], others: list[Table]) -> bool:
    """Make a change; return whether one of the product's tables has changed.

    Args:
        number: Selects the table, set, element or rule.
        own: The product's tables.
        others: The tables of other programs.
    """
    if name in FOREIGN:
        _beside(name, number, another, others)
        return False
    if not own:
        return False
    rng = Random(number)
    table = rng.choice(own)
    if name == "flush ruleset":
        another.flush_ruleset()
        return True
    return _CHANGES[name](another, table, rng)


def _beside(name: str, number: int, another: Another, others: list[Table]) -> None:
    if name == "foreign table":
        another.add_table(f"firewall-{number % 3}", PREROUTING, 300, "filter")
    elif name == "foreign nat":
        # kube-proxy's leftovers have this priority, which follows the product's chains.
        hook = (PREROUTING, OUTPUT)[number % 2]
        another.add_table(
            f"leftover-{number % 3}", hook, -100, "nat", translate_all("10.1.0.1", LEFTOVER_PORT)
        )
    elif others:
        another.delete_table(others[number % len(others)])


def _named(table: Table, rng: Random, *, filled: bool, flags: int = 0) -> NftSet | None:
    found = [
        one
        for one in table.sets.values()
        if not one.is_anonymous
        and not one.flags & DYNAMIC
        and bool(one.elements) >= filled
        and one.flags & flags == flags
    ]
    return rng.choice(found) if found else None


def _delete_element(another: Another, table: Table, rng: Random) -> bool:
    one = _named(table, rng, filled=True)
    if one is None:
        return False
    element = rng.choice(list(one.elements.values()))
    return not another.delete_element(table, one.name, element)


def _change_element(another: Another, table: Table, rng: Random) -> bool:
    one = _named(table, rng, filled=True, flags=MAP)
    if one is None:
        return False
    element = rng.choice(list(one.elements.values()))
    if element.verdict is not None:
        return False
    value = bytes([element.value[0] ^ 1, *element.value[1:]])
    return not another.change_element(table, one.name, element, value)


def _add_element(another: Another, table: Table, rng: Random) -> bool:
    one = _named(table, rng, filled=False)
    if one is None or (one.flags & MAP and not one.data_bytes):
        return False
    key = bytes([10, 96, 99, 1, 6, 0, 0, 0, 0, 80, 0, 0]).ljust(one.key_bytes, b"\0")
    value = b"\x8c\xa1".ljust(one.data_bytes, b"\0")[: one.data_bytes]
    element = Element(key[: one.key_bytes], value)
    if element.place in one.elements:
        return False
    return not another.add_element(table, one.name, element)


def _flush_set(another: Another, table: Table, rng: Random) -> bool:
    one = _named(table, rng, filled=True)
    return one is not None and not another.flush_set(table, one.name)


def _flush_counted(another: Another, table: Table, rng: Random) -> bool:
    found = [one for one in table.sets.values() if "counted" in one.name and one.elements]
    return bool(found) and not another.flush_set(table, rng.choice(found).name)


def _chain(another: Another, table: Table, rng: Random, *, with_rules: bool) -> Chain | None:
    found = [one for one in table.chains.values() if bool(one.rules) >= with_rules]
    # The product assumes that no other program changes only a chain that was just added.
    earlier = [one for one in found if one.order <= another.last_chain]
    return rng.choice(earlier or found) if found else None


def _flush_chain(another: Another, table: Table, rng: Random) -> bool:
    chain = _chain(another, table, rng, with_rules=True)
    return chain is not None and not another.flush_chain(table, chain.name)


def _delete_rule(another: Another, table: Table, rng: Random) -> bool:
    chain = _chain(another, table, rng, with_rules=True)
    if chain is None:
        return False
    return not another.delete_rule(table, chain.name, rng.choice(chain.rules).handle)


def _insert_rule(another: Another, table: Table, rng: Random) -> bool:
    chain = _chain(another, table, rng, with_rules=False)
    return chain is not None and not another.insert_rule(table, chain.name)


def _append_rule(another: Another, table: Table, rng: Random) -> bool:
    chain = _chain(another, table, rng, with_rules=False)
    return chain is not None and not another.insert_rule(table, chain.name, first=False)


def _policy(another: Another, table: Table, rng: Random) -> bool:
    found = [one for one in table.chains.values() if one.hook is not None and one.policy]
    return bool(found) and not another.drop_by_policy(table, rng.choice(found).name)


def _delete_table(another: Another, table: Table, _rng: Random) -> bool:
    return not another.delete_table(table)


def _delete_chain(another: Another, table: Table, rng: Random) -> bool:
    chain = _chain(another, table, rng, with_rules=False)
    return chain is not None and not another.delete_chain(table, chain.name)


def _delete_set(another: Another, table: Table, rng: Random) -> bool:
    if not table.sets:
        return False
    # The kernel refuses this if a rule looks up the set.
    return not another.delete_set(table, rng.choice(list(table.sets)))


def _replace_table(another: Another, table: Table, _rng: Random) -> bool:
    """Replace a table with another one of the same name."""
    another.delete_table(table)
    another.add_table(table.name, PREROUTING, 0, "filter", drop())
    return True


_CHANGES: dict[str, Callable[[Another, Table, Random], bool]] = {
    "delete element": _delete_element,
    "change element": _change_element,
    "add element": _add_element,
    "flush set": _flush_set,
    "flush counted": _flush_counted,
    "flush chain": _flush_chain,
    "delete rule": _delete_rule,
    "insert rule": _insert_rule,
    "append rule": _append_rule,
    "policy": _policy,
    "delete table": _delete_table,
    "delete chain": _delete_chain,
    "delete set": _delete_set,
    "replace table": _replace_table,
}
