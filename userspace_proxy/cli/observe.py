"""Runs the command ``observe``, which prints a line for each connection of a running proxy.

    admin address ──lines of JSON──▶ line of text, or unchanged ──▶ terminal

The command waits for a proxy that restarts; connections in the meantime aren't shown.
"""

from __future__ import annotations

import http.client
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TextIO

from ..config.flags import parsed
from ..config.values import parse_address
from ..errors import UserspaceProxyError
from ..facts.connection import read_connection
from ..model.durations import parse_duration
from ..status.connection_words import line_of
from ..status.http_answer import Bounds, Unreadable
from .admin import AdminAddress, find_admin, said_in
from .command import Given
from .service_argument import ServiceArguments, first_found
from .terminal import EVERY_S, columns_of, wait, write_line

PATH = "/api/v1/connections"
# Seconds of silence after which the stream is closed; the proxy sends an empty line at least every
# two seconds.
_SILENT_S = 20.0
# The maximum length of a line. A connection takes a few hundred bytes; the beginning of a longer
# line is dropped.
_MAX_LINE_BYTES = 64 * 1024
_REFUSAL_PIECES = 10


def observe(given: Given, *, wait: Callable[[float], object] = wait) -> int:
    """Show connections until Ctrl-C, which raises KeyboardInterrupt.

    Raises:
        ConfigError: A flag's value isn't valid.
        UserspaceProxyError: No proxy answers the first request, or a proxy refuses a request.
    """
    query = query_of(given)
    admin = find_admin(given)
    is_json = given.values.get("output") == "json"
    # Detect errors that the stream doesn't report: another program or version, an unknown Service.
    names = ServiceArguments(given).selected()
    query["service"], _ = first_found(
        names,
        lambda name: admin.get(PATH, accept="application/json", service=name, **query),
    )
    is_lost = False
    while True:
        for line in _lines(admin, query):
            is_lost = False
            if line.strip():
                _show(line, sys.stdout, is_json=is_json)
        if not is_lost:
            print(f"{admin} has closed the connection; trying again", file=sys.stderr)
        is_lost = True
        wait(EVERY_S)


def query_of(given: Given) -> dict[str, str]:
    """Return the selection of connections for the query string. Raises ConfigError."""
    query = {name: "yes" for name in ("failed", "saved") if given.is_on(name)}
    if slow := given.values.get("slow"):
        parsed("slow", slow, parse_duration)
        query["slow"] = slow
    if client := given.values.get("from"):
        query["from"] = str(parsed("from", client, parse_address))
    return query


def _lines(admin: AdminAddress, query: dict[str, str]) -> Iterator[bytes]:
    """Yield the lines of one stream until it ends or breaks off.

    Raises:
        UserspaceProxyError: The proxy refuses the request.
    """
    wanted, bounds, begun = {"watch": "yes", **query}, Bounds(wire=0, body=0), b""
    try:
        with admin.asked(PATH, "*/*", wanted, bounds, _SILENT_S) as (answer, pieces):
            for piece in pieces:
                if answer.code not in (0, http.client.OK):
                    why = said_in(b"".join((piece, *islice(pieces, _REFUSAL_PIECES))))
                    raise UserspaceProxyError(f"cannot watch connections at {admin}: {why}")
                *complete, begun = (begun + piece).split(b"\n")
                yield from complete
                begun = begun if len(begun) <= _MAX_LINE_BYTES else b""
    except (OSError, Unreadable):
        return


def _show(line: bytes, stream: TextIO, *, is_json: bool) -> None:
    if is_json:
        stream.write(f"{line.decode('utf-8', 'replace')}\n")
    else:
        try:
            one = read_connection(line)
        except ValueError:
            # Skip the line, which may be from a newer proxy.
            return
        write_line(stream, line_of(one, columns_of(stream)))
    stream.flush()
