"""Judges what is observed in a worker (``plane.record_ring``): the lines of its connection log.

    ends ──▶ line of the log ─┐                        ┌─▶ no record is another one, or unasked for
    waits, is saved ──────────┴─▶ ring ──asked again──▶┼─▶ none is missing, unless that is counted
                                                       └─▶ room is for each filter

Rule 1: whether a filter takes a line is worked out here from the line's fields; where that isn't
sure, the line may be missing, and may be there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from userspace_proxy.facts.connection import ConnectionEvent, ConnectionFacts, ConnectionFilter
from userspace_proxy.plane.record_ring import RecordRing

from .model import Sure

if TYPE_CHECKING:
    from .world import World

IS_ASKED, IS_LINE, NONE_MISSING, ROOM, SHARES = (
    "asked for",
    "record of a line",
    "no record is missing",
    "room for records",
    "each filter has records",
)
ORACLES = (IS_ASKED, IS_LINE, NONE_MISSING, ROOM, SHARES)
_REFUSED = {"unanswered", "waited too long", "too many waiting"}
_BROKEN = {"reset", "timed out", "refused", "evicted", "no PROXY header"}
_RESETS, _LATE = "endpoint-resets", "endpoint-answers-late"

Line = Mapping[str, Any]


class Observing:
    """What one run observes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._judge = world.judgements
        self._ring = RecordRing(world.dataplane.engine, world.timeline.clock)
        self._filters: Sequence[ConnectionFilter] = ()
        self._lines: list[Line] = []
        """Of those that ended since it was last asked for."""
        self._before: Counter[tuple[str, ConnectionEvent]] = Counter()
        """What has happened to clients of TCP before their ends, since then."""

    def ended(self, line: Line) -> None:
        """Note a line of the log."""
        if self._filters:
            self._lines.append(line)

    def happens(self, number: int, event: ConnectionEvent) -> None:
        """Note that a client of TCP waits, or has an endpoint after others had failed."""
        if self._filters:
            served_as = self._world.clients[number].served_as
            self._before[str(served_as), event] += 1

    def ask(self, filters: Sequence[ConnectionFilter]) -> None:
        """Ask for what was observed, and observe what these filters take from now on."""
        found = self._ring.observe(filters)
        if self._filters:
            self._judge_records(found.records, dict(found.left_out))
        self._filters, self._lines = filters, []
        self._before.clear()

    def _judge_records(
        self, records: Sequence[ConnectionFacts], left_out: Mapping[ConnectionFilter, int]
    ) -> None:
        most = self._world.plan.node.records
        self._judge.check(ROOM, len(records) <= most, f"{len(records)} records, not {most}")
        lines = defaultdict[tuple[object, ...], list[Line]](list)
        for each in self._lines:
            # Two flows of a client, to two of the node's addresses, may end as one.
            lines[each["client"], each["duration_s"], each["cause"]].append(each)
        seen: Counter[tuple[str, ConnectionEvent]] = Counter()
        found: list[Line] = []
        for one in records:
            fields = one.log_fields()
            is_asked = any(_takes(each, fields, one.event) is not Sure.NO for each in self._filters)
            self._judge.check(IS_ASKED, is_asked, f"{one.client} is in no filter: {one}")
            if one.event in (ConnectionEvent.ENDED, ConnectionEvent.REFUSED) and one.cause:
                similar = lines[one.client, fields["duration_s"], one.cause]
                line = next((like for like in similar if _has(like, fields)), None)
                if line is None and not similar and one.kind == "flow":
                    # It isn't over: none served it at that moment.
                    self._judge.excuse(IS_LINE, "a flow that isn't over was refused")
                else:
                    self._judge.check(IS_LINE, line is not None, f"a record is no line: {one}")
                if line is not None:
                    similar.remove(line)
                found.append(fields)
            elif one.kind == "connection":
                seen[one.client, one.event] += 1
        why = f"{seen} were observed, and {self._before} happened"
        self._judge.check(IS_LINE, seen <= self._before, why)
        if not left_out:
            self._judge_missing([*chain.from_iterable(lines.values())], seen)
        if len(found) == len(records):
            # Others aren't known to be those of a filter.
            self._judge_shares(found, left_out)

    def _judge_missing(
        self, lines: Sequence[Line], seen: Counter[tuple[str, ConnectionEvent]]
    ) -> None:
        for line in lines:
            taken = {_takes(each, line, None) for each in self._filters}
            if taken == {Sure.NO} or Sure.YES in taken:
                why = f"no record of {line['client']}: {line['cause']}"
                self._judge.check(NONE_MISSING, Sure.YES not in taken, why)
            else:
                self._judge.excuse(NONE_MISSING, "whether it failed isn't clear")
        if any(each == ConnectionFilter() for each in self._filters):
            missing = self._before - seen
            self._judge.check(NONE_MISSING, not missing, f"no records of {missing}")

    def _judge_shares(
        self, records: Sequence[Line], left_out: Mapping[ConnectionFilter, int]
    ) -> None:
        """A filter that had no room has about as many records as the one that has the most."""
        if not left_out or len(self._filters) < 2:
            return
        takers = [
            [each for each in self._filters if _takes(each, line, None) is not Sure.NO]
            for line in records
        ]
        alone = Counter(those[0] for those in takers if len(those) == 1)
        for one in left_out:
            own = sum(one in those for those in takers)
            others = max((n for each, n in alone.items() if each != one), default=0)
            why = f"{one} had no room for {left_out[one]}, and has {own} records; another {others}"
            self._judge.check(SHARES, own >= others - 1, why)


def _has(line: Line, fields: Mapping[str, object]) -> bool:
    return all(line[name] == value for name, value in fields.items())


def _takes(one: ConnectionFilter, line: Line, event: ConnectionEvent | None) -> Sure:
    """Return whether a filter takes a line; None: it is that of an end."""
    ip = line["client"].rpartition(":")[0]
    if (one.client and one.client != ip) or not _is_of(line["service"], one.service):
        return Sure.NO
    if not (one.failed or one.saved or one.slow_s is not None):
        return Sure.YES
    found = []
    if one.saved:
        found.append(_is_saved(line))
    if one.slow_s is not None:
        found.append(_is_slow(line, one.slow_s))
    if one.failed:
        found.append(_is_failed(line) if event in (None, ConnectionEvent.ENDED) else Sure.EITHER)
    if Sure.YES in found:
        return Sure.YES
    return Sure.EITHER if Sure.EITHER in found else Sure.NO


def _is_of(service: str, wanted: str) -> bool:
    names: Collection[str] = (service.partition("/")[0], service.rpartition(":")[0], service, "")
    return wanted in names


def _is_saved(line: Line) -> Sure:
    """Return whether another endpoint answered than the first one that was dialled."""
    has_answer = line["kind"] == "connection" or line["first_byte_s"] is not None
    return _sure(bool(line["failed"] and line["endpoint"]) and has_answer)


def _is_slow(line: Line, slow_s: float) -> Sure:
    """Return whether its client waited so long for the first byte, or until the end for none."""
    waited_s = line["waited_s"]
    if line["first_byte_s"] is not None:
        waited_s += line["first_byte_s"]
    elif line["received_bytes"] or not line["endpoint"]:
        waited_s = line["duration_s"]
    return Sure.EITHER if abs(waited_s - slow_s) < 0.001 else _sure(waited_s > slow_s)


def _is_failed(line: Line) -> Sure:
    """Return whether its client didn't get what it asked for (docs/terminal.md)."""
    is_by_client = line["ended_by"] == "client"
    if line["cause"] in _REFUSED:
        return Sure.YES
    if not line["endpoint"]:
        return _sure(bool(line["failed"]) or line["ended_by"] == "proxy")
    if (line["cause"] in _BROKEN and not is_by_client) or line["code"] == _RESETS:
        return Sure.YES
    if line["kind"] == "flow" or not line["received_bytes"]:
        return Sure.NO
    if line["sent_bytes"]:
        return _sure(line["code"] == _LATE)
    return _sure(not (is_by_client and line["cause"] == "complete"))


def _sure(is_true: bool) -> Sure:
    return Sure.YES if is_true else Sure.NO
