"""Removes a table without the library: what a run that had one has left where there is none now.

Source: include/uapi/linux/netfilter/nfnetlink.h, nf_tables.h; nfnetlink_rcv_batch(), which takes
changes of nf_tables between two messages that begin and end a transaction.
"""

from __future__ import annotations

import errno
import os
import struct

from ...errors import SteeringError
from ..netlink import Requests
from ..netlink.messages import attribute, request
from ..netlink.sockets import NETLINK_NETFILTER
from .events import NFPROTO_INET, list_tables

BATCH_BEGIN, BATCH_END, DELETE_TABLE = 0x10, 0x11, 0xA02
_SUBSYSTEM = 10
_TABLE_NAME = 1
# nfgenmsg: the last field is in network order.
_FAMILY = struct.Struct(">BBH")


def remove_table(name: str) -> None:
    """Remove a table of the family ``inet``; idempotent, also on a kernel without nftables.

    Raises:
        SteeringError: The kernel refused.
    """
    if name not in list_tables():
        return
    frame = _FAMILY.pack(0, 0, _SUBSYSTEM)
    body = _FAMILY.pack(NFPROTO_INET, 0, 0) + attribute(_TABLE_NAME, name.encode() + b"\0")
    try:
        with Requests.open(NETLINK_NETFILTER) as requests:
            code = requests.transact(
                request(BATCH_BEGIN, 0, frame),
                request(DELETE_TABLE, 0, body),
                request(BATCH_END, 0, frame),
            )
    except OSError as exc:
        code = exc.errno or errno.EIO
    if code not in (0, errno.ENOENT):
        raise SteeringError(
            f"cannot remove the nftables table inet {name}: {os.strerror(code)}",
            hint=f"nft delete table inet {name}",
        )
