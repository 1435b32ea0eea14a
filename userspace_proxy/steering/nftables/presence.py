"""Whether nftables works here, and whose tables are; asked before anything is started."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SteeringError
from ..names import label_of_table
from ..nf_tables import Ruleset, list_tables


def missing() -> str:
    """Return what nftables lacks to work here, in words; empty where it lacks nothing."""
    try:
        Ruleset().close()
    except SteeringError as exc:
        return exc.message
    return ""


def labels() -> list[str]:
    """Return the labels (:func:`~..names.proxy_label`) of all proxies that have a table here.

    Sorted; empty text for the one of a proxy without a name.

    Raises:
        SteeringError: There is no right to ask.
    """
    return labels_by(label_of_table)


def labels_by(label_of: Callable[[str], str | None]) -> list[str]:
    """Return the labels that the names of this network namespace's tables give, sorted.

    Args:
        label_of: Returns the label in a table's name, or None for one that doesn't matter.

    Raises:
        SteeringError: There is no right to ask.
    """
    found = map(label_of, list_tables())
    return sorted(label for label in found if label is not None)
