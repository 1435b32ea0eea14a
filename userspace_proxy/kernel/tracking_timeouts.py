"""Makes conntrack keep a half-closed connection for as long as the proxy does.

    one side has ended ──▶ the kernel forgets its translation after 60 s of silence
        ──▶ later packets of the other side arrive untranslated ──▶ RST

Keep-alive prevents that silence if both sides answer. This is for peers that don't, or whose
answers are lost.

Rule 1: the timeout is only raised: an administrator's longer one stays.
Rule 2: it is restored only if it still has this proxy's value: a later change by others stays.
Rule 3: it is optional: where it can't be written, keep-alive has to suffice.

Source: kube-proxy, --conntrack-tcp-timeout-close-wait; kernel documentation,
networking/nf_conntrack-sysctl.
"""

from __future__ import annotations

import math
from pathlib import Path

_NAME = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"
# The files show and change the network namespace of the thread that opens them.
_PROC_SYS = Path("/proc/sys")


class TrackingTimeouts:
    """The kernel's timeout of half-closed connections in this thread's network namespace.

    Args:
        half_closed_s: How long the proxy keeps such a connection; rounded up.
    """

    def __init__(self, half_closed_s: float, proc_sys: Path = _PROC_SYS) -> None:
        self._wanted = math.ceil(half_closed_s)
        self._path = proc_sys.joinpath(*_NAME.split("."))
        self._before: int | None = None
        """The value to restore; None while it isn't raised."""

    def hold(self) -> str:
        """Raise it until :meth:`put_back`.

        Returns:
            Why it can't be raised; empty if it is long enough now.
        """
        try:
            before = self._read()
            if before < self._wanted:
                self._path.write_text(f"{self._wanted}\n", encoding="ascii")
                self._before = before
        except (OSError, ValueError) as exc:
            cause = exc.strerror if isinstance(exc, OSError) else str(exc)
            return f"cannot raise {_NAME} to {self._wanted} s: {cause}"
        return ""

    def put_back(self) -> None:
        """Restore it, unless another program has changed it; idempotent."""
        before, self._before = self._before, None
        if before is None:
            return
        try:
            if self._read() == self._wanted:
                self._path.write_text(f"{before}\n", encoding="ascii")
        except (OSError, ValueError):
            # It was writable before, so another program manages it now.
            return

    def _read(self) -> int:
        return int(self._path.read_text(encoding="ascii"))
