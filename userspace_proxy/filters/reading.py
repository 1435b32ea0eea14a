"""Reads the nftables chains of other programs, with the contents of sets in their rules.

    ct state @__map0 vmap ─▶ ct state established accept, ct state invalid drop
    tcp dport @__set0 accept ─▶ tcp dport 22,8000-8100 accept
    ip daddr . th dport @__set1 drop ─▶ ip daddr 10.96.7.1/32 th dport 80 drop, …

A set's elements are written into the rule that looks them up. This is done for anonymous sets
(``tcp dport { 22, 80 }``), and for named sets (``ip daddr @blocked``). Sets to which packets add
elements, or whose elements expire, change without a new generation of the ruleset, so only
:func:`read_chains` reads them: its caller reads again. User data isn't read.

Source: include/uapi/linux/netfilter/nf_tables.h, enum nft_set_flags.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..errors import SteeringError
from ..kernel.netlink.messages import read_all
from ..kernel.nf_tables import Ruleset
from ..kernel.nf_tables import expressions as x
from ..kernel.nf_tables.reader import FAMILIES, ListedElement, ListedSet
from ..kernel.nf_tables.writer import TABLE_DORMANT
from .chains import Chain, ChainTable, Step, Tables, base_chains
from .matches import (
    DRAWN,
    WAYS,
    Condition,
    LoadedField,
    Match,
    MatchField,
    SetLookup,
    Unknown,
    Value,
)
from .rules import (
    read_step,
    span_of,
    values_of,
    verdict_of,
)

CHAINS_MAX = 200
"""The maximum number of chains read with their rules per base chain; a firewall has tens."""

IsOwn = Callable[[ChainTable], bool]
"""Returns whether a table belongs to any userspace-proxy."""
_NUMBERS = {name: number for number, name in FAMILIES.items()}


class NftReader:
    """A reader of chains in this thread's network namespace; not thread-safe.

    Args:
        is_own: Selects tables whose chains are omitted.
        has_passing: Whether to read sets to which packets add elements, or whose elements expire.

    Raises:
        SteeringError: The kernel has no nftables, or permission is denied; also in ``chains``.
    """

    def __init__(self, is_own: IsOwn, *, has_passing: bool = False) -> None:
        self._is_own = is_own
        self._unread = ~(_READ | _PASSING) if has_passing else ~_READ
        self._ruleset = Ruleset()
        # The sets read since the last listing of chains, by family and table, then by name.
        self._sets: dict[tuple[int, str], dict[str, ListedSet]] = {}

    def chains(self) -> Tables:
        """Return other programs' chains without rules, and forget the sets that were read.

        Chains of dormant tables are omitted, because the kernel doesn't call them.
        """
        self._sets = {}
        awake = (one for one in self._ruleset.tables() if not one.flags & TABLE_DORMANT)
        handles = {_table(one.family, one.name): one.handle for one in awake}
        listed = [(_table(one.family, one.table), one) for one in self._ruleset.chains()]
        own = [handles.get(at, 0) for at, one in listed if one.kind == "nat" and self._is_own(at)]
        tables: Tables = {}
        for table, found in listed:
            if table not in handles or self._is_own(table):
                continue
            is_newer = bool(own) and handles[table] > max(own)
            # Chains of type route differ only in that the kernel may route packets again.
            kind = "filter" if found.kind == "route" else found.kind
            place = found.name, kind, found.hook, found.priority, found.policy
            chain = Chain(table, *place, is_read=False, is_newer=is_newer)
            tables.setdefault(table, {})[found.name] = chain
        return tables

    def with_steps(self, chain: Chain) -> Chain:
        """Return a chain with its rules; unchanged if they can't be read, or the chain is gone."""
        family, table, _ = chain.table
        try:
            listed = self._ruleset.rules(_NUMBERS[family], table, chain.name)
        except SteeringError:
            return chain
        steps = (read_step(rule.expressions()) for rule in listed)
        place = _NUMBERS[family], table
        found = (one for step in steps if step for one in self._written_out(step, *place))
        return replace(chain, steps=tuple(found), is_read=True)

    def _written_out(self, step: Step, family: int, table: str) -> Iterator[Step]:
        if (one := set_of(step)) is None:
            yield step
            return
        try:
            found, elements = self._looked_up(family, table, one.name)
        except SteeringError:
            # The table was removed after it was listed, so the set's contents are unknown.
            found, elements = None, ()
        for written in write_out(step, found, elements):
            yield from self._written_out(written, family, table)

    def _looked_up(
        self, family: int, table: str, name: str
    ) -> tuple[ListedSet | None, Sequence[ListedElement]]:
        """Return a set and its elements; None and no elements if the set can't be read.

        If the set has more than :data:`ELEMENTS_MAX` elements, only the first elements are read,
        slightly more than that maximum.
        """
        place = family, table
        if place not in self._sets:
            self._sets[place] = {one.name: one for one in self._ruleset.sets(*place)}
        found = self._sets[place].get(name)
        if found is None or found.flags & self._unread:
            return None, ()
        return found, self._ruleset.first_elements(*place, name, ELEMENTS_MAX)

    def reached(self, chains: Mapping[str, Chain], base: Chain) -> dict[str, Chain]:
        """Return a chain and all chains that it reaches, with their rules, by name.

        At most :data:`CHAINS_MAX` are returned: the chains reached by the fewest jumps.

        Args:
            chains: The chains of the base chain's table, by name.
        """
        found: dict[str, Chain] = {}
        waiting = deque([base.name])
        while waiting and len(found) < CHAINS_MAX:
            name = waiting.popleft()
            if name in chains and name not in found:
                found[name] = self.with_steps(chains[name])
                waiting += [step.target for step in found[name].steps]
        return found

    def generation(self) -> int:
        """Return the generation of the ruleset, which grows with each change by any program.

        Raises:
            SteeringError: The kernel rejects the request.
        """
        return self._ruleset.generation()

    def close(self) -> None:
        self._ruleset.close()


def _table(family: int, name: str) -> ChainTable:
    return ChainTable(FAMILIES.get(family, str(family)), name)


def read_chains(is_own: IsOwn, *hooks: str) -> Tables:
    """Return other programs' chains, with the rules of some chains.

    These are the filter chains at the given hooks, and the chains that they reach.

    Raises:
        SteeringError: The kernel has no nftables, or refuses a listing.
    """
    reader = NftReader(is_own, has_passing=True)
    try:
        tables = reader.chains()
        for hook in hooks:
            for base in list(base_chains(tables, kind="filter", hook=hook)):
                chains = tables[base.table]
                chains |= reader.reached(chains, base)
        return tables
    finally:
        reader.close()


def read_generation() -> int:
    """Return a number that grows with each change of the ruleset; 0 if it can't be read."""
    try:
        with Ruleset() as ruleset:
            return ruleset.generation()
    except SteeringError:
        return 0


ELEMENTS_MAX = 200
"""The maximum number of elements of a set that are compared: most handwritten rules have fewer.
Each frontend is compared with each element."""
_INTERVALS, _MAP = 0x4, 0x8
# The flags that supported sets may have; 0x3 are the flags of anonymous and constant sets.
_READ = 0x3 | _INTERVALS | _MAP
# NFT_SET_TIMEOUT, and NFT_SET_EVAL of dynamic sets.
_PASSING = 0x10 | 0x20


def set_of(step: Step) -> SetLookup | None:
    """Return a rule's first look-up in a set; None if the rule has none."""
    return next((one for one in step.matches if isinstance(one, SetLookup)), None)


def write_out(
    step: Step, looked_up: ListedSet | None, elements: Sequence[ListedElement]
) -> Iterator[Step]:
    """Yield a rule with the elements of its first set written out.

    A set of single fields yields one rule. A verdict map, or a set of concatenated fields, yields
    one rule per element; a map of other values is a set of its keys. An empty set yields no rule,
    because no packet matches, or, if the look-up is inverted, the rule without this condition.
    Intervals are an unknown condition in a verdict map, in concatenated fields, and of interfaces
    (prefixes of names, or indexes in host byte order).

    Args:
        step: A rule with a :func:`set_of`.
        looked_up: The set; None if it couldn't be read. If it is None, or has an element for all
            other values (``*``) or an interface of unknown name, the condition is unknown.
        elements: All elements of the set, or more than :data:`ELEMENTS_MAX`.
    """
    if (one := set_of(step)) is None:
        return
    flags = looked_up.flags if looked_up else 0
    is_whole = len(elements) <= ELEMENTS_MAX and all(element.key for element in elements)
    has_verdicts = any(x.DATA_VERDICT in read_all(element.value) for element in elements)
    is_parted = has_verdicts or len(one.fields) > 1
    has_spans = flags & _INTERVALS
    if (
        looked_up is None
        or not is_whole
        or (has_spans and (is_parted or one.fields[0].field in WAYS))
    ):
        yield _replace(step, one, Unknown())
    elif is_parted:
        for left, element in zip(range(len(elements) - 1, -1, -1), elements, strict=True):
            # The map contains each number, so the last element contains the numbers that are left.
            is_last = one.fields == (DRAWN,) and not left
            key = () if is_last else _matches(one.fields, element.key)
            found = _replace(step, one, *key)
            if has_verdicts:
                verdict, target = verdict_of(element.value)
                found = found._replace(verdict=verdict, target=target)
            yield found
    elif one.fields == (DRAWN,):
        # A map contains each number, and so is no condition; a set may lack numbers.
        yield _replace(step, one, *(() if flags & _MAP else (Match(MatchField.DRAWN),)))
    else:
        (field,) = one.fields
        plain = () if has_spans else [values_of(field, element.key) for element in elements]
        all_values = _spans(field, elements) if has_spans else (v for each in plain for v in each)
        if field.field in WAYS and not all(plain):
            yield _replace(step, one, Unknown())
        elif values := tuple(all_values):
            yield _replace(step, one, Match(field.field, values, one.is_inverted))
        elif one.is_inverted:
            yield _replace(step, one)


def _matches(fields: Sequence[LoadedField], key: bytes) -> Iterator[Condition]:
    """Yield a condition for each field of a key; fields start at multiples of four bytes."""
    at = 0
    for field in fields:
        values = values_of(field, key[at : at + field.width])
        yield Match(field.field, values) if values or field == DRAWN else Unknown()
        at += field.width + -field.width % 4


def _replace(step: Step, one: SetLookup, *by: Condition) -> Step:
    at = step.matches.index(one)
    return step._replace(matches=(*step.matches[:at], *by, *step.matches[at + 1 :]))


def _spans(field: LoadedField, elements: Sequence[ListedElement]) -> Iterator[Value]:
    """Yield the intervals: each begins at an element, and ends before the next end element."""
    first = b""
    # Sort end elements first: if one interval ends where another begins, the end element belongs to
    # the first interval.
    for one in sorted(elements, key=lambda one: (one.key, not one.is_end)):
        if not one.is_end:
            first = one.key
        elif first:
            last = int.from_bytes(one.key, "big") - 1
            yield from span_of(field, first, last.to_bytes(len(first), "big"))
            first = b""
    if first:
        yield from span_of(field, first, b"\xff" * len(first))
