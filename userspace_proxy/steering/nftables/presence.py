"""Whether nftables works here, and whose tables are; asked before anything is started."""

from __future__ import annotations

from ...errors import SteeringError
from ..names import label_of_table
from .events import TableWatch, list_tables
from .library import load


def missing() -> str:
    """Return what nftables lacks to work here, in words; empty where it lacks nothing."""
    try:
        load()
        TableWatch("").close()
    except SteeringError as exc:
        return exc.message
    return ""


def labels() -> list[str]:
    """Return the labels (:func:`~..names.proxy_label`) of all proxies that have a table here.

    Sorted; empty text for the one of a proxy without a name. Needs no library.

    Raises:
        SteeringError: There is no right to ask.
    """
    found = (label_of_table(table) for table in list_tables())
    return sorted(label for label in found if label is not None)
