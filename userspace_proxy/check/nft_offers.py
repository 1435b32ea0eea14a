"""Whether the kernel accepts this proxy's nftables tables for client addresses.

A table is sent to the kernel, which checks and then discards it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import SteeringError
from ..kernel.nf_tables import BRIDGE, INET, Ruleset, TableWriter
from ..kernel.offers import PROBE_TABLE
from ..steering.client_address.bridge_delivery import write_bridge_table
from ..steering.client_address.reply_routing import write_table as write_reply_table


def nft_lacks_for_replies() -> str:
    """Return what the kernel lacks for reply routing; empty where it lacks nothing."""
    return _lack(_table(write_reply_table, INET))


def nft_lacks_for_bridges() -> str:
    """As :func:`nft_lacks_for_replies`, for the delivery of replies on bridges."""
    return _lack(_table(write_bridge_table, BRIDGE))


def _table(fill: Callable[[TableWriter], None], family: int) -> list[bytes]:
    table = TableWriter(PROBE_TABLE, family)
    table.create()
    fill(table)
    return table.messages


def _lack(messages: Sequence[bytes]) -> str:
    try:
        with Ruleset() as ruleset:
            ruleset.try_out(messages)
    except SteeringError as exc:
        return str(exc)
    return ""
