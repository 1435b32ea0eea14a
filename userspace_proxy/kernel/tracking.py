"""Reads how full the conntrack table is, and raises its timeout for half-closed connections.

    one side has ended ──▶ the kernel forgets its translation after 60 s of silence
        ──▶ later packets of the other side arrive untranslated ──▶ RST

With a raised timeout, the kernel keeps translations as long as the proxy keeps connections.
Keep-alive prevents the silence if both sides answer; the timeout is for peers that don't answer, or
whose answers are lost.

Rule 1: the timeout is only raised: an administrator's longer timeout stays.
Rule 2: the timeout is restored only if it still has this proxy's value: later changes by other
programs stay.
Rule 3: the timeout is optional: if it can't be written, keep-alive must suffice.
Rule 4: the previous value is saved on disk, if there is a state folder, so that the proxy that
takes over, or starts after a crash, can restore it. A value from before the last boot is ignored.
Rule 5: proxies with different names share the timeout and the file: the last proxy to stop restores
the timeout.

Source: kube-proxy, --conntrack-tcp-timeout-close-wait; kernel documentation,
networking/nf_conntrack-sysctl; net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show().
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..clocks import Clocks
from ..state_file import StateFile, StateFileError

PROC = Path("/proc")


class TrackingTable(NamedTuple):
    """The conntrack table of a network namespace."""

    entries: int = 0
    limit: int = 0
    """The maximum number of entries; 0 if nothing is tracked."""
    drops: int = 0
    """Packets dropped since boot, mostly because the table was full."""


def read_table(proc: Path = PROC) -> TrackingTable:
    """Return the table of this thread's network namespace; zeros if nothing is tracked."""
    try:
        entries, limit = (
            int((proc / "sys/net/netfilter" / name).read_text(encoding="ascii"))
            for name in ("nf_conntrack_count", "nf_conntrack_max")
        )
    except (OSError, ValueError):
        return TrackingTable()
    return TrackingTable(entries, limit, _drops(proc))


def _drops(proc: Path) -> int:
    """Return the number of packets dropped by all CPUs; 0 if the kernel doesn't report it."""
    try:
        text = (proc / "thread-self/net/stat/nf_conntrack").read_text(encoding="ascii")
    except OSError:
        return 0
    names, *cpus = (line.split() for line in text.splitlines())
    return sum(int(cpu[names.index("drop")], 16) for cpu in cpus)


_NAME = "net.netfilter.nf_conntrack_tcp_timeout_close_wait"
# The sysctls; each file shows the network namespace of the thread that opens it.
_PROC_SYS = Path("/proc/sys")
_BOOT = "kernel.random.boot_id"
_UNKNOWN = "unknown"


class _Note(NamedTuple):
    raised: int
    before: int


class TrackingTimeouts:
    """Raises the kernel's timeout of half-closed connections in this thread's network namespace.

    Args:
        half_closed_s: How long the proxy keeps a half-closed connection; rounded up.
        file: The file for the previous value; None if it isn't saved.
        is_last: Returns whether no other proxy is running in this network namespace.
    """

    def __init__(
        self,
        half_closed_s: float,
        file: StateFile | None = None,
        *,
        is_last: Callable[[], bool] = lambda: True,
        proc_sys: Path = _PROC_SYS,
    ) -> None:
        self._wanted = math.ceil(half_closed_s)
        self._path = proc_sys.joinpath(*_NAME.split("."))
        self._boot_path = proc_sys.joinpath(*_BOOT.split("."))
        self._file = file
        self._is_last = is_last
        self._held: _Note | None = None
        """The raised value and the previous value; None unless the timeout is raised."""

    def hold(self) -> str:
        """Raise the timeout until :meth:`put_back`.

        Returns: Why the timeout can't be raised; empty if it is long enough now.
        """
        try:
            now = self._read()
            noted = self._noted()
            # If true, another process has raised the timeout, and hasn't restored it.
            is_raised = noted is not None and noted.raised == now
            before = noted.before if noted and is_raised else now
            if now < self._wanted:
                held = _Note(self._wanted, before)
                self._write_note(f"{self._boot()} {held.raised} {held.before}")
                self._path.write_text(f"{self._wanted}\n", encoding="ascii")
                self._held = held
            elif is_raised:
                self._held = noted
        except (OSError, ValueError) as exc:
            return (exc.strerror if isinstance(exc, OSError) else "") or str(exc)
        return ""

    def put_back(self) -> bool:
        """Restore the timeout, unless another program has changed it or another proxy needs it.

        Returns: Whether the timeout was restored; False if called again.
        """
        held, self._held = self._held, None
        if held is None or not self._is_last():
            return False
        try:
            if is_raised := self._read() == held.raised:
                self._path.write_text(f"{held.before}\n", encoding="ascii")
            self._write_note("")
        except (OSError, ValueError):
            # ``hold`` could access the sysctl, so assume that something else controls it now, and
            # leave it alone.
            return False
        return is_raised

    def _read(self) -> int:
        return int(self._path.read_text(encoding="ascii"))

    def _boot(self) -> str:
        try:
            return self._boot_path.read_text(encoding="ascii").strip() or _UNKNOWN
        except OSError:
            return _UNKNOWN

    def _noted(self) -> _Note | None:
        try:
            found = self._file.read() if self._file else None
            boot, *seconds = found.data.decode("ascii").split() if found else ("",)
            return _Note(*map(int, seconds)) if boot == self._boot() else None
        except (OSError, ValueError, TypeError, StateFileError):
            return None

    def _write_note(self, text: str) -> None:
        if self._file is not None:
            # The file is optional: without it, the timeout stays raised after a crash.
            with contextlib.suppress(OSError, StateFileError):
                self._file.write(text.encode("ascii"), current_at=Clocks.time())
