"""Lays out the chains of the nat table, which bring what clients dial to the proxy ports; pure.

    PREROUTING ─▶ UPROXY-PRE ─▶ ┐
                                ├ UPROXY-O…   the tree of chains (tree), REDIRECT
    OUTPUT ─────▶ UPROXY-OUT ─▶ ┘

While PREROUTING needs DNAT, it has a tree of its own: UPROXY-P….

Rule 1: the lines of a chain are sorted, so equal rules give equal chains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from .rules import OUT, PRE, PREFIX, Jump, NatRule
from .text import Chains
from .tree import ROOT, Line, Place, Tree

# Beyond so many rules at once, laying the tree out anew is less work.
LAY_OUT_ABOVE = 200


class NatChains:
    """The chains of one set of rules.

    Args:
        version: 4 or 6.
        rules: REDIRECT rules, one for each frontend.
        to_ip: Where PREROUTING sends packets instead; empty for the interface's address.
    """

    def __init__(self, version: int, rules: Iterable[NatRule] = (), to_ip: str = "") -> None:
        self._version = version
        self._to_ip = to_ip
        self._tree = Tree(version, rules)
        self.chains: Chains = self._lay_out()
        """The lines of each chain; replaced by a change, never changed."""

    def change(self, gone: Collection[NatRule], come: Collection[NatRule]) -> None:
        """Take some rules out and put some in.

        Args:
            gone: Rules that are no longer wanted.
            come: Rules that are: new ones, or ones that replace that of their frontend.
        """
        kept = {rule.frontend for rule in come}
        leaving = [rule.frontend for rule in gone if rule.frontend not in kept]
        if len(gone) + len(come) > LAY_OUT_ABOVE:
            rules = {rule.frontend: rule for rule in (*self._tree.rules(), *come)}
            for frontend in leaving:
                rules.pop(frontend, None)
            self._tree = Tree(self._version, rules.values())
            self.chains = self._lay_out()
            return
        difference = self._tree.change(leaving, come)
        changed: dict[str, set[str]] = {}
        for chain, line in self._sides(difference.gone):
            self._lines_of(chain, changed).discard(line)
        for chain, line in self._sides(difference.come):
            self._lines_of(chain, changed).add(line)
        chains = {**self.chains, **{chain: tuple(sorted(changed[chain])) for chain in changed}}
        self.chains = {c: lines for c, lines in chains.items() if lines or c in (PRE, OUT)}

    def _lay_out(self) -> Chains:
        lines: dict[str, list[str]] = {PRE: [], OUT: []}
        for chain, line in self._sides(self._tree.places()):
            lines.setdefault(chain, []).append(line)
        return {chain: tuple(sorted(lines[chain])) for chain in lines}

    def _lines_of(self, chain: str, changed: dict[str, set[str]]) -> set[str]:
        return changed.setdefault(chain, set(self.chains.get(chain, ())))

    def _sides(self, places: Iterable[Place]) -> Iterator[tuple[str, str]]:
        """Yield chain and text of the lines that those of the tree become."""
        pre = "P" if self._to_ip else "O"
        for chain, line in places:
            if chain == ROOT:
                yield PRE, self._on_side(line, pre)
                yield OUT, self._on_side(line, "O")
            else:
                for side in {"O", pre}:
                    yield f"{PREFIX}{side}{chain}", self._on_side(line, side)

    def _on_side(self, line: Line, side: str) -> str:
        if isinstance(line, Jump):
            return str(line._replace(chain=f"{PREFIX}{side}{line.chain}"))
        return str(line._replace(to_ip=self._to_ip) if side == "P" else line)


def reached_rules(chains: Chains) -> Mapping[str, list[NatRule]]:
    """Return the rules to which the jumps of both sides lead."""
    return {chain: list(_reached(chains, chain, ())) for chain in (PRE, OUT)}


def all_rules(chains: Chains) -> list[NatRule]:
    """Return the rules of all chains of this proxy, whether or not a jump leads there.

    Rules of the form before the tree, in two long chains, are found as well.
    """
    ours = (lines for chain, lines in chains.items() if chain.startswith(PREFIX))
    return rules_among(line for lines in ours for line in lines)


def rules_among(lines: Iterable[str]) -> list[NatRule]:
    """Return the rules among some lines."""
    return [rule for line in lines if (rule := NatRule.parse(line)) is not None]


def _reached(chains: Chains, chain: str, way: tuple[Jump, ...]) -> Iterator[NatRule]:
    for line in chains.get(chain, ()):
        if jump := Jump.parse(line):
            yield from _reached(chains, jump.chain, (*way, jump))
            continue
        rule = NatRule.parse(line)
        if rule is not None and all(jump.covers(rule) for jump in way):
            yield rule
