"""Everybody's nftables chains, as libnftables prints them.

Source: nft(8); priorities have names there (``dstnat + 10``), which depend on the hook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ...errors import SteeringError
from ..answers import write_table as write_answers_table
from ..nf_tables import Ruleset
from ..nftables.library import Libnftables
from ..nftables.rules import Shape, write_table
from .chains import Chain, Step, Tables

# Source: include/uapi/linux/netfilter_ipv4.h (NF_IP_PRI_…), nft(8) "Standard priority names".
_PRIORITIES = {
    "raw": -300,
    "mangle": -150,
    "dstnat": -100,
    "filter": 0,
    "security": 50,
    "srcnat": 100,
}
_TABLE = re.compile(r"table (\S+ \S+) \{")
_CHAIN = re.compile(r"\tchain (\S+) \{")
_BASE = re.compile(
    r"\t\ttype (?P<kind>\S+) hook (?P<hook>\S+) (?:device \S+ )?"
    r"priority (?P<priority>[^;]+);(?: policy (?P<policy>\w+);)?"
)
_VERDICT = re.compile(
    r"(?P<condition>.*?)\s*\b(?P<verdict>accept|drop|reject|return|(?:jump|goto) \S+|queue)\b.*"
)
# What rules do beside their verdict.
_ASIDE = re.compile(
    r'\bcounter(?: packets \d+ bytes \d+)?|\blog(?: prefix "[^"]*"| level \S+| flags \S+)*'
    r'|\bcomment "[^"]*"|\bxt match "comment"|\blimit rate [^"]*? burst \d+ \S+'
)


class NftReader:
    """Reads chains in this thread's network namespace; belongs to one thread.

    Raises:
        SteeringError: The library or a right is missing.
    """

    def __init__(self) -> None:
        # Without a right the library would say so on stderr.
        Ruleset().close()
        self._library = Libnftables()

    def chains(self) -> Tables:
        """Return all chains without their rules.

        Raises:
            SteeringError: There is no right to ask.
        """
        return parse_tables(self._library.run("list chains"))

    def with_steps(self, chain: Chain) -> Chain:
        """Return a chain with its rules; without any where it has gone meanwhile."""
        try:
            text = self._library.run(f"list chain {chain.table} {chain.name}")
        except SteeringError:
            return chain
        listed = parse_tables(text).get(chain.table, {}).get(chain.name)
        return chain if listed is None else replace(chain, steps=listed.steps)

    def close(self) -> None:
        """Let go of the library."""
        self._library.close()


def nft_offers() -> str:
    """Return what the kernel's nftables lacks for our rules, in words; empty for nothing.

    Our table is sent to the kernel, which looks at all of it and then forgets it.

    Raises:
        SteeringError: The library is missing.
    """
    return _lack(write_table(Shape("userspace-proxy-check", refuse_port=1, to_ip="127.0.0.1")))


def nft_lacks_for_answers() -> str:
    """Return what the kernel's nftables lacks to catch answers, in words; empty for nothing.

    It goes as for :func:`nft_offers`.

    Raises:
        SteeringError: The library is missing.
    """
    return _lack(write_answers_table("userspace-proxy-check"))


def _lack(table: str) -> str:
    library = Libnftables()
    try:
        library.run(table, is_dry=True)
    except SteeringError as exc:
        return str(exc)
    finally:
        library.close()
    return ""


def parse_tables(text: str) -> Tables:
    """Cut a listing into chains; what isn't of chains is passed over."""
    tables: Tables = {}
    table = ""
    chain: Chain | None = None
    steps: list[Step] = []
    for line in text.splitlines():
        if found := _TABLE.fullmatch(line):
            table = found[1]
        elif found := _CHAIN.match(line):
            chain, steps = Chain(table, found[1]), []
        elif line == "\t}" and chain is not None:
            tables.setdefault(table, {})[chain.name] = replace(chain, steps=tuple(steps))
            chain = None
        elif chain is not None and (found := _BASE.match(line)):
            chain = replace(
                chain,
                kind=found["kind"],
                hook=found["hook"],
                priority=_priority(found["priority"]),
                policy=found["policy"] or "accept",
            )
        elif chain is not None:
            steps += read_step(line.strip())
    return tables


def read_step(line: str) -> Iterator[Step]:
    """Yield the rule in a line, if one is there."""
    text = " ".join(_ASIDE.sub(" ", line).split())
    if found := _VERDICT.fullmatch(text):
        yield Step(found["verdict"], found["condition"].strip())


def _priority(text: str) -> int:
    """Return a priority by its number, or by its name with a difference."""
    parts = text.split()
    name = parts[0]
    number = _PRIORITIES[name] if name in _PRIORITIES else int(name)
    if len(parts) == 3:
        number += int(parts[1] + parts[2])
    return number
