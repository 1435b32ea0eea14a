"""Whether the kernel accepts this proxy's nftables tables.

A table is sent to the kernel, which checks and then discards it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import SteeringError
from ..kernel.nf_tables import BRIDGE, INET, Ruleset, TableWriter
from ..steering.client_address.bridge_delivery import write_bridge_table
from ..steering.client_address.reply_routing import write_table as write_reply_table
from ..steering.nftables.rules import Shape, write_table

_NAME = "userspace-proxy-check"
_SHAPE = Shape(_NAME, refuse_port=1, to_ip="127.0.0.1")


def nft_offers() -> str:
    """Return what the kernel's nftables lacks for steering; empty where it lacks nothing."""
    return _lack(write_table(_SHAPE._replace(checks_sockets=False)))


def nft_lacks_for_guard() -> str:
    """As :func:`nft_offers`, for the look-up of sockets, without which steering works, too."""
    return _lack(write_table(_SHAPE))


def nft_lacks_for_replies() -> str:
    """As :func:`nft_offers`, for reply routing."""
    return _lack(_table(write_reply_table, INET))


def nft_lacks_for_bridges() -> str:
    """As :func:`nft_offers`, for the delivery of replies on bridges."""
    return _lack(_table(write_bridge_table, BRIDGE))


def _table(fill: Callable[[TableWriter], None], family: int) -> list[bytes]:
    table = TableWriter(_NAME, family)
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
