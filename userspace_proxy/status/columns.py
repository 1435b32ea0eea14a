"""Which columns the table of Service ports has: those of figures that are all zero are left out.

Their room is that of causes. What moves is shown for a minute after it was zero, so that columns
don't come and go.
"""

from __future__ import annotations

from collections.abc import Iterable

from .rows import Row

_ALWAYS = ("name", "address", "endpoints", "state")
_MOVING = ("rate", "open", "in", "out")


class Columns(tuple[str, ...]):
    """The keys of the columns, in order."""

    __slots__ = ()

    @property
    def moving(self) -> int:
        """How many of them are rates, or numbers of what is open."""
        return sum(key in _MOVING for key in self)


def columns_of(rows: Iterable[Row], sort: str) -> Columns:
    """Return the columns of these rows, that of their order among them."""
    shown = {*_ALWAYS, sort.removeprefix("-")}
    for row in rows:
        port, rates = row.port, row.rates
        if row.sparkline is not None or any(rates):
            shown |= {"rate", "open", "in", "out", "minute"}
        if port.active:
            shown.add("open")
        if port.saved:
            shown.add("saved")
        if port.failed:
            shown.add("failed")
    if shown & {"in", "out"}:
        shown |= {"in", "out"}
    order = (*_ALWAYS, *_MOVING, "saved", "failed", "minute")
    return Columns(key for key in order if key in shown)
