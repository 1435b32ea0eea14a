"""Parses the chains of all programs in the legacy tables, which ``iptables-save`` prints."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import replace

from ...filters.chains import Chain, ChainTable, RuleVerdict, Step, Tables
from ...filters.following import SOURCE_NAT
from ...filters.matches import (
    PORTS,
    Condition,
    Conditions,
    Match,
    MatchField,
    Ports,
    Unknown,
    Value,
    states,
)
from ...kernel.netlink import explained
from ...model.addresses import parse_network
from ..names import label_of
from .legacy import LegacyTables, tables_in_use
from .legacy_table import parse_table, split_target

FAMILIES = {4: "ip", 6: "ip6"}
# Priorities of a table's built-in chains. Source: NF_IP_PRI_NAT_DST, NF_IP_PRI_FILTER.
_PRIORITIES = {"nat": -100, "filter": 0, "mangle": -150, "raw": -300, "security": 50}
_VERDICTS = {
    **{one.upper(): RuleVerdict(one) for one in ("accept", "drop", "reject", "return")},
    **dict.fromkeys(("QUEUE", "NFQUEUE", "SYNPROXY", "TPROXY"), RuleVerdict.QUEUE),
    **dict.fromkeys(("DNAT", "REDIRECT"), RuleVerdict.TRANSLATE),
    **dict.fromkeys(("SNAT", "MASQUERADE", "NETMAP"), RuleVerdict.SNAT),
}
_SOURCE = re.compile(r"--to-source \[?([\d.]+|[\da-f:]+)\]?(?::[\d-]+)?(?= |$)")
_LEADS = {"-j": RuleVerdict.JUMP, "-g": RuleVerdict.GOTO}
_POLICY = re.compile(r":(\S+) ([A-Z]+)\b.*")
_COMMENT = re.compile(r'-m comment --comment (?:"(?:\\.|[^"\\])*"|\S+) ?')
# iptables conditions that have an equivalent in nft.
_CONDITION = re.compile(
    r"(?:-m (?:conntrack|state|tcp|udp|multiport) )?(! )?"
    r"(-i|-o|-s|-d|-p|--ctstate|--state|--dports?|--sports?) (\S+) ?"
    r"|-m socket --transparent(?: --(?:nowildcard|restore-skmark))* ?"
    r"|-m (statistic)(?: --(?:mode|probability|every|packet) \S+)* ?"
)
_FIELDS = {
    "-i": MatchField.WAY_IN,
    "-o": MatchField.WAY_OUT,
    "-s": MatchField.SOURCE,
    "-d": MatchField.DESTINATION,
    "-p": MatchField.PROTOCOL,
    "--dport": MatchField.DESTINATION_PORT,
    "--sport": MatchField.SOURCE_PORT,
}

FILTERING = ("raw", "mangle", "filter", "security")
"""The tables whose chains may drop packets."""


def read_legacy(*names: str) -> Tables:
    """Return the chains of the named legacy tables of both families, with their rules.

    A table that isn't in use isn't read, because reading would create it.

    Raises:
        SteeringError: Permission is denied, the program that prints tables is missing, or its
            output is incomplete.
    """
    tables: Tables = {}
    for version in FAMILIES:
        with explained("list legacy iptables tables", hint="run as root"):
            in_use = tables_in_use(version)
        for name in {*names}.intersection(in_use):
            text = LegacyTables(version).save(name)
            table = ChainTable(FAMILIES[version], name, is_legacy=True)
            tables[table] = parse_legacy(text, table, _PRIORITIES.get(name, 0))
    return tables


def parse_legacy(text: str, table: ChainTable, priority: int) -> dict[str, Chain]:
    """Return the chains in a table's text; raise a SteeringError if the text is incomplete."""
    policies = {
        found[1]: found[2].lower() for found in map(_POLICY.fullmatch, text.split("\n")) if found
    }
    chains = parse_table(text, str)
    places = {"POSTROUTING": SOURCE_NAT} if table.name == "nat" else {}
    return {
        name: Chain(
            table,
            name,
            kind=("nat" if table.name == "nat" else "filter") if name in policies else "",
            hook=name.lower() if name in policies else "",
            priority=places.get(name, priority) if name in policies else 0,
            policy=policies.get(name, "accept"),
            steps=tuple(_steps(lines, chains)),
        )
        for name, lines in chains.items()
        if label_of(name) is None
    }


def _steps(lines: Iterable[str], chains: Container[str]) -> Iterator[Step]:
    # Omit jumps to this program's own chains, which affect only packets to frontends and proxy
    # ports.
    return (step for line in lines if label_of((step := _step(line, chains)).target) is None)


def _step(line: str, chains: Container[str]) -> Step:
    conditions, effect = split_target(_COMMENT.sub("", line))
    # A rule that only counts has no target, and corrupt text may lack one.
    option, target = (*effect.split(), "", "")[:2]
    matches = _matches(conditions.strip())
    if target and target in chains:
        return Step(_LEADS[option], matches, target)
    source = _SOURCE.search(effect)
    return Step(_VERDICTS.get(target, RuleVerdict.NONE), matches, source[1] if source else "")


def _matches(conditions: str) -> Conditions:
    """Return a rule's conditions; text that isn't understood is an unknown condition."""
    found = list(_CONDITION.finditer(conditions))
    known = [_match(*one.groups()) for one in found]
    rest = _CONDITION.sub("", conditions).strip()
    return (*known, *([Unknown()] if rest else []))


def _match(sign: str | None, option: str | None, text: str, drawn: str | None) -> Condition:
    if option is None:
        return Match(MatchField.DRAWN if drawn else MatchField.TRANSPARENT_SOCKET)
    if option in ("--ctstate", "--state"):
        return replace(states(text.lower().split(",")), is_inverted=bool(sign))
    field = _FIELDS[option.replace("ports", "port")]
    try:
        return Match(field, tuple(_values(field, text)), bool(sign))
    except ValueError:
        return Unknown()


def _values(field: MatchField, text: str) -> Iterator[Value]:
    if field in (MatchField.SOURCE, MatchField.DESTINATION):
        yield parse_network(text)
    elif field in PORTS:
        for span in text.split(","):
            first, _, last = span.partition(":")
            yield Ports(int(first), int(last or first))
    else:
        yield f"{text[:-1]}*" if text.endswith("+") else text
