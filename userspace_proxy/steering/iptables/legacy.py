"""The legacy tables of one IP family: read and written as text, watched by a number.

    iptables-legacy-save -t nat            every rule of a table, as text
    iptables-legacy-restore --noflush      edits, in one commit: all of them or none
    IPT_SO_GET_INFO                        a table's size and layout, to see that it changed

Rule 1: the programs of the legacy tables are run, whatever the node's default is; the plain names
are nftables' on many nodes, which would put the rules where these programs never see them.
Rule 2: ``restore`` runs while the caller holds the xtables lock. It inherits the lock's descriptor,
so that the lock outlives the caller until the program has ended, and takes a private lock instead
of the real one, for which it would wait for ever.

Source: iptables/xshared.c, xtables_lock(): XTABLES_LOCKFILE since iptables 1.8.7; an older one
meets the held lock and fails. include/uapi/linux/netfilter_ipv4/ip_tables.h: the option.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence

from ...errors import SteeringError

_MULTI = "xtables-legacy-multi"
_PREFIXES = {4: "iptables", 6: "ip6tables"}
# Services started by systemd may lack these in PATH.
MORE_PATHS = ("/usr/sbin", "/sbin")
# 10,000 Services take 0.2 s.
_RUN_WITHIN_S = 30.0
# IPT_SO_GET_INFO and IP6T_SO_GET_INFO; IPT_SO_GET_REVISION_MATCH.
_GET_INFO = 64
_GET_REVISION_MATCH = 66
# Of xt_get_revision: the name and the revision; the first with "nowildcard": xt_socket_mtinfo2.
_SOCKET_REVISION = struct.pack("=29sB", b"socket", 2)
_LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# sizeof ipt_getinfo: name, valid hooks, five starts, five underflows, entries, bytes.
_INFO_BYTES = 84
_HINTS = {
    errno.EPERM: "grant NET_ADMIN and NET_RAW, run as root, or run with --steering=none",
    errno.ENOENT: "modprobe ip_tables iptable_nat iptable_filter, or run with --steering=none",
}
_libc = ctypes.CDLL(None, use_errno=True)
# What a kernel without legacy tables answers: no such table, or no such option.
_MISSING = (errno.ENOENT, errno.ENOPROTOOPT)


class LegacyTables:
    """The tables of one IP family in the thread's network namespace.

    Args:
        version: 4 or 6.

    Raises:
        SteeringError: The programs are missing.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self._save = _need_program(version, "save")
        self._restore = _need_program(version, "restore")

    def info(self, table: str) -> bytes:
        """Return what changes when a rule is added or removed, by whatever program.

        It costs 30 µs. A rule that another one of the same size replaces doesn't show.

        Raises:
            SteeringError: The kernel has no such table, or the right is missing.
        """
        try:
            given = table.encode().ljust(_INFO_BYTES, b"\0")
            return _ask_kernel(self._version, _GET_INFO, given)
        except OSError as exc:
            raise _explained(table, exc) from exc

    def save(self, table: str) -> str:
        """Return a table as ``iptables-save`` prints it.

        Raises:
            SteeringError: As :meth:`info`, or a rule needs an extension that isn't installed.
        """
        self.info(table)
        try:
            done = _run([*self._save, "-t", table])
        except SteeringError as exc:
            raise SteeringError(f"cannot read the iptables table {table}: {exc.message}") from exc
        return done.decode(errors="surrogateescape")

    def restore(self, table: str, edits: Iterable[str], lock: int) -> None:
        """Carry out edits in one commit.

        Args:
            table: ``nat`` or ``filter``.
            edits: Lines as ``iptables-restore`` takes them.
            lock: The descriptor of the xtables lock, which the caller holds.

        Raises:
            SteeringError: An edit was refused; nothing has changed.
        """
        try:
            self._run_restore(table, edits, lock)
        except SteeringError as exc:
            raise SteeringError(f"cannot change the iptables table {table}: {exc.message}") from exc

    def would_take(self, table: str, edits: Iterable[str]) -> bool:
        """Return whether program and kernel know all that edits ask for; changes nothing."""
        try:
            self._run_restore(table, edits, None)
        except SteeringError:
            return False
        return True

    def _run_restore(self, table: str, edits: Iterable[str], lock: int | None) -> None:
        text = "\n".join((f"*{table}", *edits, "COMMIT", ""))
        command = [*self._restore, "--noflush", *(["--test"] if lock is None else [])]
        # A lock without a file: the root may be read-only.
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


def has_socket_match() -> bool:
    """Return whether the kernel can look up sockets (xt_socket); True where it can't be asked.

    It loads that match if it must and can, but makes no table.
    """
    try:
        _ask_kernel(4, _GET_REVISION_MATCH, _SOCKET_REVISION)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _ask_kernel(version: int, option: int, given: bytes) -> bytes:
    """Ask for a socket option that takes a value, which ``socket.getsockopt`` can't give."""
    buffer = ctypes.create_string_buffer(given, len(given))
    size = ctypes.byref(ctypes.c_uint32(len(buffer)))
    with socket.socket(_FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_RAW) as asking:
        if _libc.getsockopt(asking.fileno(), _LEVELS[version], option, buffer, size) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    return buffer.raw


def find_program(version: int, name: str) -> list[str]:
    """Return how to run ``save`` or ``restore`` of the legacy tables; empty where it is missing."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *MORE_PATHS))
    prefix = _PREFIXES[version]
    if found := shutil.which(f"{prefix}-legacy-{name}", path=path):
        return [found]
    if found := shutil.which(_MULTI, path=path):
        return [found, f"{prefix}-{name}"]
    return []


def missing_programs() -> list[str]:
    """Return the names of the programs that can't be found, of IPv4."""
    names = ("save", "restore")
    return [f"{_PREFIXES[4]}-legacy-{name}" for name in names if not find_program(4, name)]


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
    """Run a program; return what it printed.

    Raises:
        SteeringError: It failed, in its own words.
    """
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


def _explained(table: str, exc: OSError) -> SteeringError:
    """Return one line for the operator, with the remedy."""
    if exc.errno in _MISSING:
        return SteeringError(
            f"cannot read the iptables table {table}: this kernel has no legacy tables",
            hint=_HINTS[errno.ENOENT],
        )
    return SteeringError(
        f"cannot read the iptables table {table}: {exc.strerror}",
        hint=_HINTS.get(exc.errno or 0, ""),
    )
