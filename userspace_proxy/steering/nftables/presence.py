"""Decides whether nftables works here, and finds existing tables and their owners."""

from __future__ import annotations

from ...errors import SteeringError
from ...kernel.nf_tables import Ruleset
from ...kernel.nf_tables.ruleset import labels_by
from ..names import label_of_table


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
