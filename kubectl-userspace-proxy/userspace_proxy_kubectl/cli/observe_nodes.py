"""Implements ``observe`` for all nodes, which prints a line per connection, with its node.

    streams of all agents ──merged as they arrive──▶ line with its node ──▶ terminal

Rule 1: a node whose stream breaks is named once until it sends lines again, and its stream is
reopened. Other nodes' lines continue.
Rule 2: the reason why connections of a Service port can't be observed is the same on all nodes, and
is reported once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, TextIO
from urllib.parse import urlencode

from userspace_proxy.causes.say import say
from userspace_proxy.cli.all_nodes import settings_of
from userspace_proxy.cli.command import DONE, Given
from userspace_proxy.cli.observe import PATH, query_of
from userspace_proxy.cli.service_argument import ServiceArguments
from userspace_proxy.cli.terminal import columns_of, write_line
from userspace_proxy.facts.connection import ConnectionEvent
from userspace_proxy.status.connection_words import line_of

from .followed import open_reader
from .nodes import existing, services_among

if TYPE_CHECKING:
    from ..nodes.reader import NodeLine

# The maximum number of remembered reports: a hostile agent may send any number of Service names.
_SAID_MAX = 10_000


def observe_nodes(given: Given) -> int:
    """Show all nodes' connections until Ctrl-C, which raises KeyboardInterrupt.

    Raises:
        ConfigError: A flag's value isn't valid.
        UserspaceProxyError: No agent can be found, or there is no such Service.
    """
    asyncio.run(show_lines(given))
    return DONE


async def show_lines(given: Given) -> None:
    """Show all nodes' connections until cancelled.

    Raises:
        As :func:`observe_nodes`.
    """
    query, settings = query_of(given), settings_of(given)
    names = ServiceArguments(given, settings, reads_cluster=True).selected()
    shown = ShownLines(sys.stdout, is_json=given.values.get("output") == "json")
    async with open_reader(given, settings) as reader:
        all_nodes = await reader.first(also=services_among(names))
        selected = {"watch": "yes", **query, "service": existing(all_nodes, names)}
        wanted = urlencode({name: text for name, text in selected.items() if text})
        async for line in reader.lines(f"{PATH}?{wanted}"):
            shown.add(line)


class ShownLines:
    """Prints lines of nodes, and remembers the reports that it has printed."""

    def __init__(self, stream: TextIO, *, is_json: bool) -> None:
        self._stream = stream
        self._is_json = is_json
        self._broken: set[str] = set()
        self._unseen: set[tuple[str, str, int]] = set()

    def add(self, line: NodeLine) -> None:
        """Print a line, or the problem of a broken stream, unless it was already reported."""
        if line.problem is not None:
            if line.node not in self._broken:
                self._broken.add(line.node)
                print(f"{line.node}: {say(line.problem)}; trying again", file=sys.stderr)
            return
        self._broken.discard(line.node)
        if not line.line.strip():
            return
        try:
            text = self._json(line) if self._is_json else self._text(line)
        except (ValueError, RecursionError):
            # Skip the line: it is from a newer version of the proxy, or from another program.
            return
        if self._is_json:
            self._stream.write(f"{text}\n")
        elif text:
            write_line(self._stream, text)
        self._stream.flush()

    def _json(self, line: NodeLine) -> str:
        from ..nodes.decoding import read_connection_line

        read_connection_line(line.line)
        fields = json.loads(line.line)
        return json.dumps({**fields, "node": line.node}, ensure_ascii=False, allow_nan=False)

    def _text(self, line: NodeLine) -> str:
        from ..nodes.decoding import read_connection_line

        one = read_connection_line(line.line)
        if one.event is ConnectionEvent.UNSEEN:
            key = one.service, one.cause, one.count
            if key in self._unseen:
                return ""
            if len(self._unseen) < _SAID_MAX:
                self._unseen.add(key)
        return line_of(one, columns_of(self._stream), line.node)
