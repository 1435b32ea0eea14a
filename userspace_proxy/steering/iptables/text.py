"""Tables as text: chains of lines, as ``iptables-save`` prints them, and edits of them.

    -A UPROXY-OUT -d 10.96.7.1/32 …        ──▶ chain "UPROXY-OUT", line "-d 10.96.7.1/32 …"
    chains in force, chains wanted         ──▶ edits: ":CHAIN - [0:0]", "-A CHAIN LINE", …

Rule 1: lines of this proxy are in the one form that ``iptables-save`` prints, so equal rules are
equal lines.
Rule 2: edits are lines as ``iptables-restore --noflush`` takes them; rules are removed by their
text, never by their number, which a rule of another program may have by now.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache

from ..names import PREFIX

Lines = tuple[str, ...]
Chains = Mapping[str, Lines]
"""The lines of each chain, in their order."""
_WORD = re.compile(r'"(?:\\.|[^"\\])*"|\S+')
_OUR_CHAIN = re.compile(rf"(?<!\S){PREFIX}\S+")


def parse_table(text: str, known: Callable[[str], str]) -> dict[str, Lines]:
    """Return the chains of one table.

    Args:
        text: As ``iptables-save`` prints it.
        known: Returns what a chain of this proxy is called in this program.
    """
    chains: dict[str, list[str]] = {}
    known = cache(known)
    # Not splitlines(): a comment may contain what that takes for the end of a line.
    for line in text.split("\n"):
        if line.startswith(":"):
            chains[known(line[1:].partition(" ")[0])] = []
        elif line.startswith("-A "):
            _, _, rest = line.partition(" ")
            chain, _, rule = rest.partition(" ")
            chains[known(chain)].append(_rename(rule, known))
    return {chain: tuple(lines) for chain, lines in chains.items()}


def rename_chains(edit: str, in_kernel: Callable[[str], str]) -> str:
    """Return an edit with the chains of this proxy named as in the kernel."""
    if edit.startswith(":"):
        chain, _, rest = edit[1:].partition(" ")
        return f":{in_kernel(chain)} {rest}"
    return _rename(edit, in_kernel)


def _rename(text: str, new_name: Callable[[str], str]) -> str:
    return _OUR_CHAIN.sub(lambda found: new_name(found[0]), text) if PREFIX in text else text


def split_target(line: str) -> tuple[str, str]:
    """Return what a line asks for and, from ``-j`` or ``-g`` on, what it does then."""
    for word in _WORD.finditer(line):
        if word[0] in ("-j", "-g"):
            return line[: word.start()].rstrip(), line[word.start() :]
    return line, ""


def target_of(line: str) -> str:
    """Return the target or chain that a line leads to; empty for one that only counts."""
    words = split_target(line)[1].split()
    return words[1] if words else ""


def edits_between(have: Chains, want: Chains) -> Iterator[str]:
    """Yield the edits that turn some chains into others; a chain that differs is written anew."""
    for chain in want:
        if chain not in have:
            yield f":{chain} - [0:0]"
    for chain, lines in want.items():
        before = have.get(chain, ())
        if before != lines:
            if before:
                yield f"-F {chain}"
            yield from (f"-A {chain} {line}" for line in lines)
    gone = [chain for chain in have if chain not in want]
    # Chains may jump to each other, so all are emptied before one is removed.
    yield from (f"-F {chain}" for chain in gone)
    yield from (f"-X {chain}" for chain in gone)
