"""Formats a connection as text, in the same words for the terminal and the page.

      ✓ 09:18:03.123 shop/cart-1 → shop/web:http → 10.244.0.3:8080: 78 B in, 1.2 kB out, first byte
                     after 0.8 ms; complete, by the client, after 3.1 ms

Rule 1: as in ``text``, a line begins with two blanks and a mark: ✕ for failed connections; ! for
connections that were saved or wait, and for clients that left before an endpoint answered or that
got no byte back; · for notes about the stream itself.
Rule 2: control characters are escaped, because names and causes come from workers and clusters.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import assert_never

from ..facts import Level
from ..facts.connection import ConnectionEvent, ConnectionFacts
from ..facts.edges import EdgesFacts
from ..facts.units import format_bytes, format_count, format_seconds, plural
from ..model.quoting import printable
from .text import IGNORED_MARK, MARKS
from .wrapping import placed

_NOTED = (ConnectionEvent.LEFT_OUT, ConnectionEvent.UNSEEN)


def level_of(one: ConnectionFacts) -> Level | None:
    """Return a connection's severity; None for a note about the stream."""
    if one.event in _NOTED:
        return None
    if one.is_failed:
        return Level.TROUBLE
    is_served = one.event is ConnectionEvent.ENDED and one.endpoint and not one.failed
    return Level.OK if is_served and not one.is_unanswered else Level.ATTENTION


def line_of(one: ConnectionFacts, columns: int = 0, node: str = "") -> str:
    """Return the line about a connection, without a final newline; ``node`` is the node it is on.

    A line longer than ``columns`` is wrapped; 0 for no limit.
    """
    level = level_of(one)
    mark = IGNORED_MARK if level is None else MARKS[level]
    way = " → ".join(filter(None, (client_of(one), _service(one), one.endpoint)))
    what = printable(": ".join(filter(None, (way, rest_of(one)))))
    head = " ".join(filter(None, (time_of_day(one.at), printable(node))))
    return "\n".join(placed(f"  {mark} {head} ", what, columns))


def client_of(one: ConnectionFacts) -> str:
    """Return the client's pod, or its address if the pod is unknown."""
    return one.client_pod or one.client


def _service(one: ConnectionFacts) -> str:
    """Return the Service port and, if it is a range, the port that the client dialled."""
    port = one.frontend.rpartition(":")[2] if one.in_range else ""
    return f"{one.service} port {port}" if port else one.service


def rest_of(one: ConnectionFacts) -> str:
    """Return the text after the endpoint: failed dials, bytes, times and the connection's end."""
    match one.event:
        case ConnectionEvent.ENDED | ConnectionEvent.REFUSED:
            parts = [*_dials(one), *_bytes(one)]
            return "; ".join(filter(None, (", ".join(parts), end_of(one))))
        case ConnectionEvent.SAVED:
            return ", ".join([*_dials(one), f"answered after {_seconds(one.waited_s)}"])
        case ConnectionEvent.HELD:
            return ", ".join([*_dials(one), "waits for an endpoint"])
        case ConnectionEvent.DROPPED:
            return f"{one.cause} were dropped: {format_count(one.count)}"
        case ConnectionEvent.LEFT_OUT:
            return f"{plural(one.count, 'connection')} left out: {one.cause}"
        case ConnectionEvent.UNSEEN:
            what = f"{one.count} more Service ports" if one.count else "its connections"
            return f"{what} can't be seen: {one.cause}"
        case _:
            assert_never(one.event)


def end_of(one: ConnectionFacts) -> str:
    """Return how a connection ended, by which side, and after how long; empty while it is open."""
    if not one.ended_by:
        return ""
    word = "refused: " if one.event is ConnectionEvent.REFUSED else ""
    # The cause of a failed dial is already shown next to the dial.
    code = f" ({one.code})" if one.code and not one.failed else ""
    return f"{word}{one.cause}{code}, by the {one.ended_by}, after {_seconds(one.duration_s)}"


def cells_of(one: ConnectionFacts) -> Sequence[str]:
    """Return the cells of a row: time, client, Service port, endpoint, and result."""
    return [time_of_day(one.at), client_of(one), _service(one), one.endpoint, rest_of(one)]


def edge_cells(edges: EdgesFacts, most: int) -> Sequence[Sequence[str]]:
    """Return rows of the first ``most`` edges: client, Service port, connections, failures.

    If there were other calls, a last row contains the number of their connections.
    """
    rows = [
        [
            edge.client_pod or edge.client,
            edge.service,
            format_count(edge.connections),
            format_count(edge.failed),
        ]
        for edge in edges.edges[:most]
    ]
    others = edges.others + sum(edge.connections for edge in edges.edges[most:])
    return [*rows, ["others", "any Service", format_count(others), ""]] if others else rows


def time_of_day(at: float) -> str:
    """Return a Unix time as the local time of day, with milliseconds."""
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at * 1000) % 1000:03d}"


def _dials(one: ConnectionFacts) -> list[str]:
    return [f"{failed.endpoint} failed ({failed.cause})" for failed in one.failed]


def _bytes(one: ConnectionFacts) -> list[str]:
    if not one.endpoint:
        return []
    parts = [f"{format_bytes(one.received_bytes)} in", f"{format_bytes(one.sent_bytes)} out"]
    if one.waited_s >= 0.001:
        parts.append(f"answered after {_seconds(one.waited_s)}")
    # Show the figure by which filters select slow connections.
    if one.first_byte_s is not None:
        parts.append(f"first byte after {_seconds(one.until_first_byte_s)}")
    elif one.received_bytes and not one.sent_bytes:
        parts.append(f"no byte in {_seconds(one.until_first_byte_s)}")
    return parts


def _seconds(seconds: float) -> str:
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s" if 1 <= seconds < 10 else format_seconds(seconds)
