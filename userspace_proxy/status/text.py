"""Renders a view as text, one line per Service port, for terminals and ``curl``.

    node-1  nftables  4 Service ports, 1 needs attention  plan 2 s old, 1 worker, 13 open
      ✕ shop/flaky  10.96.0.30:80  0 of 1  Clients fail: no route to 10.244.0.9: that address does …
      ✓ shop/web    10.96.0.10:80  3 of 3  13 open, 4,711 connections, 1.2 MB

Rule 1: a line about something begins with two blanks and a mark: ✕ trouble, ! attention, ✓ served,
· not served by design. Programs that add colours use only these.
Rule 2: problems come first, the node's before those of Service ports.
Rule 3: sentences are those of the page: this module only places them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..model import Cause, CauseCode
from ..plan import IgnoredService, PortKey
from .port_state import Level, PortState, judge
from .problems import summarise
from .units import bytes_in_words, count_in_words, plural, seconds_in_words
from .view import EndpointView, ServicePortView, StatusView

LEVEL_HEADER = "X-Userspace-Proxy-Level"
"""The header with the worst level that an answer shows: ``ok``, ``attention``, ``trouble``."""
MARKS = {Level.TROUBLE: "✕", Level.ATTENTION: "!", Level.OK: "✓"}
IGNORED_MARK = "·"
_ORDER = (Level.TROUBLE, Level.ATTENTION, Level.OK)
# Longer names and addresses move the rest of their line, not the columns of all others.
_WIDEST = 44


# Terminal programs, which accept everything.
_TERMINAL_PROGRAMS = ("curl/", "Wget/", "HTTPie/")


@dataclass(frozen=True, slots=True)
class StatusText:
    """An answer as text."""

    body: bytes
    level: Level
    """The worst of what it shows."""


@dataclass(frozen=True, slots=True)
class _Entry:
    level: Level
    cells: tuple[str, ...]
    below: tuple[str, ...] = ()
    mark: str = ""


def prefers_text(accept: str, user_agent: str) -> bool:
    """Return whether a client wants text rather than HTML.

    It does if it accepts text/plain by name and not text/html, or if it is a program for terminals
    that doesn't ask for HTML.
    """
    if "text/html" in accept:
        return False
    return "text/plain" in accept or user_agent.startswith(_TERMINAL_PROGRAMS)


def render_text(
    view: StatusView, *, now: float, is_wide: bool = False, has_node: bool = True
) -> StatusText:
    """Return a view as text in UTF-8.

    10,000 Service ports take about 0.2 s: call this in a thread.

    Args:
        is_wide: Show the addresses and endpoints of each Service port, and ignored Services.
        has_node: Show the problems of the node.
    """
    node = list(_node_lines(view, now)) if has_node else []
    ports = [_port_line(port, now, is_wide) for port in sorted(view.ports, key=_key)]
    ports.sort(key=lambda line: _ORDER.index(line.level))
    taken = [_ignored_line(item) for item in view.ignored if item.is_conflict]
    left = [_ignored_line(item) for item in view.ignored if not item.is_conflict]
    shown = [*taken, *ports, *(left if is_wide else ())]
    lines = [_header(view, ports, now), *_format(node), *_format(shown)]
    if left and not is_wide:
        lines.append(_ignored_count(len(left)))
    levels = {line.level for line in (*node, *taken, *ports)}
    level = next((level for level in _ORDER if level in levels), Level.OK)
    return StatusText(_encode(lines), level)


def say_missing(view: StatusView, service: str) -> str:
    """Return that there is no such Service, and the nearest name."""
    names = {str(port.plan.key.name.service) for port in view.ports}
    names |= {str(item.service) for item in view.ignored}
    near = difflib.get_close_matches(service, sorted(names), n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return printable(f"there is no Service {service}{hint}")


def _key(port: ServicePortView) -> PortKey:
    return port.plan.key


def _header(view: StatusView, lines: Sequence[_Entry], now: float) -> str:
    ill = sum(line.level is not Level.OK for line in lines)
    count = plural(len(lines), "Service port")
    needs = "needs" if ill == 1 else "need"
    words = f"{count}, {ill:,} {needs} attention" if ill else count
    facts = [f"plan {_age(view.sync.last_done, now)}", *_workers(view)]
    facts.append(f"{count_in_words(sum(port.traffic.active for port in view.ports))} open")
    return "  ".join([view.node or "this node", view.steering.name, words, ", ".join(facts)])


def _age(then: float, now: float) -> str:
    return f"{seconds_in_words(max(1, round(now - then)))} old" if then else "not in force yet"


def _workers(view: StatusView) -> list[str]:
    return [plural(len(view.workers), "worker")] if view.workers else []


def _node_lines(view: StatusView, now: float) -> Iterator[_Entry]:
    for problem in summarise(view, now).problems:
        # A Service whose address is taken has a line of its own.
        if not problem.port and problem.code is not CauseCode.ADDRESS_TAKEN:
            way_out = f" ({problem.way_out})" if problem.way_out else ""
            yield _Entry(problem.level, ("node", f"{problem.what}{way_out}"))


def _port_line(port: ServicePortView, now: float, is_full: bool) -> _Entry:
    state = judge(port)
    cells = (str(port.plan.key), _address(port), _usable(port), _words(port, state, now))
    below = tuple(_details(port, state, now)) if is_full else ()
    return _Entry(state.level, cells, below)


def _address(port: ServicePortView) -> str:
    if not port.frontends:
        return "no address"
    more = len(port.frontends) - 1
    return f"{port.frontends[0].frontend.address}{f' +{more}' if more else ''}"


def _usable(port: ServicePortView) -> str:
    serving = sum(e.verdict.is_usable and e.ejected_for_s is None for e in port.endpoints)
    return f"{serving:,} of {len(port.endpoints):,}"


def _words(port: ServicePortView, state: PortState, now: float) -> str:
    if state.level is not Level.OK or port.plan.is_dropping:
        return state.sentence + _figures(state.causes[0], now) if state.causes else state.sentence
    traffic = port.traffic
    noun = "flow" if port.plan.protocol == "UDP" else "connection"
    volume = traffic.received_bytes + traffic.sent_bytes
    parts = [f"{count_in_words(traffic.active)} open", plural(traffic.connections, noun)]
    return ", ".join([*parts, bytes_in_words(volume)])


def _details(port: ServicePortView, state: PortState, now: float) -> Iterator[str]:
    """Yield the causes, addresses and endpoints of a Service port."""
    for cause in state.causes:
        yield f"{cause.code}: {cause}{_figures(cause, now)}"
        if cause.hint:
            yield f"  -> {cause.hint}"
    for view in port.frontends:
        frontend = view.frontend
        yield f"address   {frontend.address}/{frontend.protocol}, {frontend.kind}: {view.target}"
    for endpoint in port.endpoints:
        yield f"endpoint  {_endpoint(endpoint)}"
    facts = [port.policy, port.balance]
    if port.plan.admits is not None:
        facts.append(f"admits {', '.join(port.plan.admits) or 'nothing'}")
    if port.plan.affinity_timeout_s is not None:
        facts.append(f"ClientIP affinity, {seconds_in_words(port.plan.affinity_timeout_s)}")
    if any(facts):
        yield f"policy    {'; '.join(filter(None, facts))}"


def _endpoint(view: EndpointView) -> str:
    state = view.verdict.reason
    if view.ejected_for_s is not None:
        state = f"ejected for {seconds_in_words(max(0.0, view.ejected_for_s))}"
    traffic = view.traffic
    parts = [state, view.verdict.node, f"{count_in_words(traffic.active)} open"]
    parts.append(f"{count_in_words(traffic.connections)} in all")
    if traffic.failures:
        parts.append(f"{count_in_words(traffic.failures)} failed")
    parts.append(bytes_in_words(traffic.received_bytes + traffic.sent_bytes))
    return f"{view.verdict.address}  {', '.join(filter(None, parts))}"


def _ignored_line(item: IgnoredService) -> _Entry:
    name = f"{item.service}:{item.port}" if item.port else str(item.service)
    if item.is_conflict:
        return _Entry(Level.TROUBLE, (name, "", "", f"Not served: {item.cause}"))
    return _Entry(Level.OK, (name, "", "", f"Ignored: {item.cause}"), mark=IGNORED_MARK)


def _ignored_count(count: int) -> str:
    words = plural(count, "Service or port", "Services or ports")
    return f"  {IGNORED_MARK} {words} ignored by design: wide output lists them"


def _figures(cause: Cause, now: float) -> str:
    """Return how often and when something failed, in brackets; empty for a state."""
    if not cause.count:
        return ""
    times = "once" if cause.count == 1 else f"{cause.count:,} times"
    last = f", last {seconds_in_words(max(0.0, now - cause.last_at))} ago" if cause.last_at else ""
    return f" ({times}{last})"


def _format(lines: Sequence[_Entry]) -> Iterator[str]:
    """Yield the lines with their cells in columns; the last cell has no width."""
    columns = list(zip(*(line.cells for line in lines), strict=True))[:-1]
    widths = [max((len(c) for c in column if len(c) <= _WIDEST), default=0) for column in columns]
    for line in lines:
        *cells, last = line.cells
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        yield f"  {line.mark or MARKS[line.level]} {'  '.join([*padded, last])}"
        yield from (f"      {text}" for text in line.below)


def _encode(lines: Iterable[str]) -> bytes:
    # Names from a manifest may contain surrogates.
    return ("\n".join(map(printable, lines)) + "\n").encode("utf-8", "replace")


def printable(text: str) -> str:
    """Return a line without control characters, which a terminal would execute."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)
