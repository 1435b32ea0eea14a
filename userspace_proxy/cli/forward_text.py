"""What ``forward`` prints: a table at the start, and then a line for each change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..facts.units import plural
from ..status.wrapping import placed


@dataclass(frozen=True, slots=True)
class ForwardedPort:
    """A Service port as this machine serves it."""

    name: str
    """``web.shop:80``, with the number that the port has in the cluster."""
    address: str
    """Where it answers; empty: nowhere."""
    pods: int = 0
    """Those that may be used."""
    problem: str = ""
    """Why it isn't served, or refuses."""


def render_start(
    ports: Mapping[str, ForwardedPort],
    left_out: Sequence[tuple[str, str]],
    *,
    head: str,
    dns: str,
    columns: int = 0,
) -> str:
    """Return the table.

    Args:
        ports: By name.
        left_out: What isn't forwarded, each with the reason.
        head: The first line.
        dns: The address of the DNS server, or why there is none.
        columns: The width of the terminal; 0: no bound.
    """
    rows = [(port.name, port.address or "-", _state(port)) for port in ports.values()]
    lines = [head, *_table([("NAME", "ADDRESS", "PODS"), *rows] if rows else [], columns)]
    if left_out:
        lines += ["not forwarded:", *_table(left_out, columns)]
    lines += [dns, "Ctrl-C ends it"]
    return "".join(f"{line}\n" for line in lines)


def render_changes(
    before: Mapping[str, ForwardedPort], now: Mapping[str, ForwardedPort]
) -> Iterator[str]:
    """Yield a line for each Service port that has changed."""
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if new is None:
            yield f"- {name} is gone"
        elif old is None:
            yield f"+ {name} at {new.address or '-'}: {_state(new)}"
        elif old != new:
            moved = "" if old.address == new.address else f" at {new.address or '-'}"
            yield f"  {name}{moved}: {_state(new)}"


def render_left_out(
    before: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Yield a line for everything that isn't forwarded, and wasn't left out before."""
    for what, why in now:
        if (what, why) not in before:
            yield f"  {what} is not forwarded: {why}"


def _state(port: ForwardedPort) -> str:
    if port.problem:
        return port.problem
    return plural(port.pods, "pod")


def _table(rows: Sequence[Sequence[str]], columns: int) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths[:-1], strict=False))
        yield from placed(f"  {'  '.join(cells)}  ", row[-1], columns)
