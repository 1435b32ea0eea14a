"""The chains of all programs in the legacy tables, as ``iptables-save`` prints them."""

from __future__ import annotations

import re
from collections.abc import Container

from ...kernel.nf_tables.chains import Chain, ChainTable, RuleVerdict, Step, Tables
from ...kernel.nf_tables.matches import Conditions, Match, MatchField, Unknown, states
from .legacy import LegacyTables, tables_in_use
from .legacy_table import parse_table, split_target

FAMILIES = {4: "ip", 6: "ip6"}
# Of a table's built-in chains. Source: NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER.
_PRIORITIES = {"nat": -100, "filter": 0, "mangle": -150, "raw": -300, "security": 50}
_VERDICTS = ("ACCEPT", "DROP", "REJECT", "RETURN", "QUEUE")
_LEADS = {"-j": RuleVerdict.JUMP, "-g": RuleVerdict.GOTO}
_POLICY = re.compile(r":(\S+) ([A-Z]+)\b.*")
_COMMENT = re.compile(r'-m comment --comment (?:"(?:\\.|[^"\\])*"|\S+) ?')
# Conditions that have an equivalent in nft.
_STATES = re.compile(r"-m (?:conntrack --ctstate|state --state) ([A-Z,]+)")
_TRANSPARENT = re.compile(r"-m socket --transparent(?: --[a-z-]+)*")


def read_legacy(name: str) -> Tables:
    """Return the chains of a legacy table of both families, with their rules.

    A table that isn't in use isn't accessed, as that would create it.

    Raises:
        SteeringError: Permission denied, or the program that prints the table is missing.
    """
    tables: Tables = {}
    for version in FAMILIES:
        if name in tables_in_use(version):
            text = LegacyTables(version).save(name)
            table = ChainTable(FAMILIES[version], name, is_legacy=True)
            tables[table] = parse_legacy(text, table, _PRIORITIES.get(name, 0))
    return tables


def parse_legacy(text: str, table: ChainTable, priority: int) -> dict[str, Chain]:
    """Return the chains of one table.

    Args:
        priority: Of its built-in chains.
    """
    policies = {
        found[1]: found[2].lower() for found in map(_POLICY.fullmatch, text.split("\n")) if found
    }
    chains = parse_table(text, str)
    return {
        name: Chain(
            table,
            name,
            kind=table.name if name in policies else "",
            hook=name.lower() if name in policies else "",
            priority=priority if name in policies else 0,
            policy=policies.get(name, "accept"),
            steps=tuple(_step(line, chains) for line in lines),
        )
        for name, lines in chains.items()
    }


def _step(line: str, chains: Container[str]) -> Step:
    conditions, effect = split_target(_COMMENT.sub("", line))
    # The option may lack its target, and a chain its name, only in text that was damaged.
    option, target = (*effect.split(), "", "")[:2]
    matches = _matches(conditions.strip())
    if target in _VERDICTS:
        return Step(RuleVerdict(target.lower()), matches)
    if target and target in chains:
        return Step(_LEADS[option], matches, target)
    return Step(RuleVerdict.NONE, matches)


def _matches(conditions: str) -> Conditions:
    """Return a rule's conditions; all but two known ones aren't understood."""
    if found := _STATES.fullmatch(conditions):
        return (states(found[1].lower().split(",")),)
    if _TRANSPARENT.fullmatch(conditions):
        return (Match(MatchField.TRANSPARENT_SOCKET),)
    return (Unknown(),) if conditions else ()
