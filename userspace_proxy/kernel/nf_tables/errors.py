"""Explains the kernel's nftables errors."""

from __future__ import annotations

import errno
import os

from ...errors import SteeringError

_HINTS = {
    errno.EPERM: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.EACCES: "run as root or grant NET_ADMIN, or run with --steering=none",
    errno.EOPNOTSUPP: "modprobe nft_nat nft_redir nft_ct nft_reject_inet, or use another steering",
}
# What the kernel says about an expression that it has no module for.
_NO_EXPRESSION = (errno.ENOENT, errno.EOPNOTSUPP)


class NftablesError(SteeringError):
    """The kernel refused a transaction; nothing was changed.

    Args:
        code: Its error number.
        what: What it refused, as ``add rule``.
    """

    def __init__(self, code: int, what: str) -> None:
        self.code = code
        is_missing = what == "add rule" and code in _NO_EXPRESSION
        hint = _HINTS.get(errno.EOPNOTSUPP if is_missing else code, "")
        place = f" ({what})" if what else ""
        super().__init__(f"cannot change nftables: {os.strerror(code)}{place}", hint=hint)


def explained(exc: OSError) -> SteeringError:
    """Return what a failed listing or question means."""
    hint = _HINTS.get(exc.errno or 0, "modprobe nf_tables, or use another steering")
    return SteeringError(f"cannot query nftables: {exc.strerror}", hint=hint)
