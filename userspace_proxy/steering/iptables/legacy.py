"""The legacy tables of one IP family: reads and writes them as text, detects changes, locks them.

    iptables-legacy-save -t nat            every rule of a table, as text
    iptables-legacy-restore --noflush      edits, in one commit: all of them or none
    IPT_SO_GET_INFO                        a table's size and layout, to detect changes
    /run/xtables.lock                      taken by every writer of legacy tables

Rule 1: the legacy programs are used, whatever the node's default is. On many nodes, ``iptables`` is
an nftables program, whose rules the legacy programs don't see.
Rule 2: ``restore`` runs while the caller holds the xtables lock. The program inherits the lock's
descriptor, so the lock is held until the program exits, even if the caller is killed. The program
takes a private lock instead of the real one, for which it would wait forever.

Source: iptables/xshared.c, xtables_lock(): flock(2) on that file, or, since iptables 1.8.7, on the
file in XTABLES_LOCKFILE, which an unprivileged user needs; an older ``restore`` fails because the
lock is held. include/uapi/linux/netfilter_ipv4/ip_tables.h: the option.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from ...errors import SteeringError
from ...kernel.legacy_options import GET_INFO, ask_legacy, info_of
from ...kernel.port_holders import named_process

_MULTI = "xtables-legacy-multi"
_PREFIXES = {4: "iptables", 6: "ip6tables"}
# Folders that an ordinary user's PATH may lack, as on Debian; su without "-" keeps that PATH.
MORE_PATHS = ("/usr/sbin", "/sbin")
# The time limit for a command; 10,000 Services take 0.2 s.
_RUN_WITHIN_S = 30.0
_HINTS = {
    errno.EPERM: "grant NET_ADMIN and NET_RAW, run as root, or run with --steering=none",
    errno.ENOENT: "modprobe -a ip_tables iptable_nat iptable_filter, or use another steering",
}
# Errors of a kernel without legacy tables: no such table, or no such option.
_MISSING = (errno.ENOENT, errno.ENOPROTOOPT)
# The files that list the tables in use, one table per line; they don't exist if the kernel has no
# legacy tables.
_TABLE_NAMES = {4: "ip_tables_names", 6: "ip6_tables_names"}
_NET = Path("/proc/thread-self/net")
LOCK_PATH = "/run/xtables.lock"
# How long to wait for the lock, as in kube-proxy (iptables -w 5).
LOCK_WAIT_S = 5.0


class LegacyTables:
    """The legacy tables of one IP family in this thread's network namespace.

    Raises:
        SteeringError: The programs are missing.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self._save = _need_program(version, "save")
        self._restore = _need_program(version, "restore")
        self._is_loaded = False

    def info(self, table: str) -> bytes:
        """Return a value that changes when any program adds or removes a rule.

        Takes 30 µs. Replacing a rule with one of the same size doesn't change the value.

        Raises:
            SteeringError: The kernel has no such table, or permission is denied.
        """
        try:
            return self._ask(table)
        except OSError as exc:
            is_missing = exc.errno in _MISSING
            raise SteeringError(
                f"cannot read the iptables table {table}: "
                f"{'this kernel has no legacy tables' if is_missing else exc.strerror}",
                hint=_HINTS.get(errno.ENOENT if is_missing else exc.errno or 0, ""),
            ) from exc

    def _ask(self, table: str) -> bytes:
        try:
            return ask_legacy(self._version, GET_INFO, info_of(table))
        except OSError as exc:
            if exc.errno != errno.ENOPROTOOPT or self._is_loaded:
                raise
        # The kernel doesn't load a table's module by itself, but the program does, so run it once.
        self._is_loaded = True
        with suppress(SteeringError):
            _run([*self._save, "-t", table])
        return ask_legacy(self._version, GET_INFO, info_of(table))

    def save(self, table: str) -> str:
        """Return a table as ``iptables-save`` prints it.

        Raises:
            SteeringError: As for :meth:`info`, or a rule needs an extension that isn't installed.
        """
        self.info(table)
        try:
            done = _run([*self._save, "-t", table])
        except SteeringError as exc:
            raise SteeringError(f"cannot read the iptables table {table}: {exc.message}") from exc
        return done.decode(errors="surrogateescape")

    def restore(self, table: str, edits: Iterable[str], lock: int) -> None:
        """Apply edits in one commit; ``lock`` is the descriptor of the held xtables lock.

        Raises:
            SteeringError: An edit was refused, and nothing has changed; or the program timed out.
        """
        try:
            self._run_restore(table, edits, lock)
        except SteeringError as exc:
            raise SteeringError(f"cannot change the iptables table {table}: {exc.message}") from exc

    def would_accept(self, table: str, edits: Iterable[str]) -> bool:
        """Return whether the program and the kernel would accept these edits; apply none."""
        try:
            self._run_restore(table, edits, None)
        except SteeringError:
            return False
        return True

    def _run_restore(self, table: str, edits: Iterable[str], lock: int | None) -> None:
        text = "\n".join((f"*{table}", *edits, "COMMIT", ""))
        command = [*self._restore, "--noflush", *(["--test"] if lock is None else [])]
        # The lock file is in memory, because the root file system may be read-only.
        private_lock = os.memfd_create("lock")
        try:
            _run(
                command,
                stdin=text.encode(errors="surrogateescape"),
                env=os.environ | {"XTABLES_LOCKFILE": f"/proc/self/fd/{private_lock}"},
                pass_fds=[private_lock] if lock is None else [lock, private_lock],
            )
        finally:
            os.close(private_lock)


def tables_in_use(version: int) -> list[str]:
    """Return an IP family's legacy tables in use in this thread's namespace; empty if none is.

    Raises:
        OSError: Permission to list them is denied.
    """
    try:
        return (_NET / _TABLE_NAMES[version]).read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []


def find_program(version: int, name: str) -> list[str]:
    """Return the command that saves or restores legacy tables; empty if it is missing."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *MORE_PATHS))
    prefix = _PREFIXES[version]
    if found := shutil.which(f"{prefix}-legacy-{name}", path=path):
        return [found]
    if found := shutil.which(_MULTI, path=path):
        return [found, f"{prefix}-{name}"]
    return []


def missing_programs() -> list[str]:
    """Return the names of the missing programs for IPv4."""
    names = ("save", "restore")
    return [f"{_PREFIXES[4]}-legacy-{name}" for name in names if not find_program(4, name)]


@contextmanager
def xtables_lock(wait_s: float = LOCK_WAIT_S) -> Iterator[int]:
    """Hold the xtables lock; only for the main thread, because the deadline is a timer signal.

    Yields: The lock's descriptor: a child that inherits it also holds the lock until it exits.

    Raises:
        SteeringError: The lock can't be opened, or another process held it for ``wait_s`` seconds.
    """
    path = Path(os.environ.get("XTABLES_LOCKFILE") or LOCK_PATH)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise SteeringError(
            f"cannot open {path}: {exc.strerror}",
            hint="set XTABLES_LOCKFILE to a file that you may write",
        ) from exc
    try:
        _lock_within(file, path, wait_s)
        yield file
    finally:
        os.close(file)


def _lock_within(file: int, path: Path, wait_s: float) -> None:
    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    previous = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, wait_s)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeoutError:
        raise SteeringError(
            f"cannot lock {path} within {wait_s:g} s: held by {_holder(file)}",
            hint="the next sync tries again",
        ) from None
    finally:
        signal.signal(signal.SIGALRM, previous)


def _holder(file: int) -> str:
    """Return the process that holds an open file's lock, or "another process" if it is unknown."""
    try:
        inode = os.fstat(file).st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            # 1: FLOCK  ADVISORY  WRITE 4711 00:19:1234 0 EOF; waiting locks have an arrow.
            fields = line.split()
            if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) == inode:
                return str(named_process(int(fields[4])))
    except (OSError, ValueError, IndexError):
        pass
    return "another process"


def _need_program(version: int, name: str) -> list[str]:
    command = find_program(version, name)
    if not command:
        raise SteeringError(
            f"cannot use the legacy tables: {_PREFIXES[version]}-legacy-{name} is missing",
            hint="install iptables 1.8.7 or later, or run with --steering=nftables",
        )
    return command


def _run(
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    env: dict[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> bytes:
    """Run a program; return its output, or raise its error message as a SteeringError."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            env=env,
            pass_fds=pass_fds,
            timeout=_RUN_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise SteeringError(f"{command[0]} took longer than {_RUN_WITHIN_S:g} s") from exc
    except OSError as exc:
        raise SteeringError(f"{command[0]} doesn't run: {exc.strerror}") from exc
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise SteeringError(lines[0] if lines else f"{command[0]} ended with {done.returncode}")
    return done.stdout
