"""Tries kernel parts without changing anything that another program can see.

    nftables       the kernel checks a transaction, and discards it
    legacy tables  are read in a network namespace of their own, which creates them there; while
                   nothing has loaded their code, modprobe shows whether it could be loaded
    others         a socket, an empty listing, or the trial in the part's row of ``offers``

Each trial returns the kernel's error number, or 0.

Source: nfnetlink_rcv_batch(); xt_request_find_table_lock(); inet_diag_cmd_exact().
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ..errors import SteeringError
from .classic_bpf import RETURN, SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF, attach
from .legacy_options import (
    GET_INFO,
    GET_REVISION_MATCH,
    GET_REVISION_TARGET,
    IPV6_GET_REVISION_MATCH,
    SOCKET_REVISION,
    ask_legacy,
    info_of,
    revision_of,
)
from .netlink import Requests
from .netlink.messages import DUMP, request
from .netlink.sockets import NETLINK_NETFILTER, NETLINK_SOCK_DIAG
from .nf_tables import NftablesError, Ruleset
from .own_namespace import user_namespace
from .privileges import effective_capabilities

_CLONE_NEWNET = 0x40000000
# Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, nfnetlink.h: IPCTNL_MSG_CT_GET_STATS
# of NFNL_SUBSYS_CTNETLINK, with an empty nfgenmsg.
_CONNTRACK_STATS, _ANY_FAMILY = 0x105, bytes(4)
# Source: include/uapi/linux/sock_diag.h, inet_diag.h: struct inet_diag_req_v2 of a TCP connection
# that can't exist, because a port is never 0.
_BY_FAMILY, _DESTROY = 20, 21
_NO_CONNECTION = struct.pack(
    "=BBHIHH32sIQ", socket.AF_INET, socket.IPPROTO_TCP, 0, 0, 0, 0, bytes(32), 0, 2**64 - 1
)
# The value from asm-generic/socket.h (since Linux 5.14), which Python's socket module lacks.
SO_NETNS_COOKIE = 71
_PASS = [(RETURN, 0, 0, 0)]
# The match and target extensions that the rules of ``iptables`` steering use.
_LEGACY_MATCHES = (b"tcp", b"udp", b"comment", b"conntrack", b"multiport")
_LEGACY_TARGETS = (b"REDIRECT", b"DNAT", b"REJECT")
_LEGACY_MODULES = {
    4: ("ip_tables", "iptable_nat", "iptable_filter"),
    6: ("ip6_tables", "ip6table_nat", "ip6table_filter"),
}
_EXTENSION_MODULES = (
    *("xt_tcpudp", "xt_comment", "xt_conntrack", "xt_multiport"),
    *("xt_nat", "xt_REDIRECT", "ipt_REJECT"),
)
_MODPROBE = Path("/proc/sys/kernel/modprobe")
_MODULES = Path("/sys/module")
_CAP_SYS_MODULE = 16
# Source: include/linux/proc_ns.h: PROC_USER_INIT_INO.
_FIRST_USER_NAMESPACE = 0xEFFFFFFD
_MODPROBE_WITHIN_S = 10.0
_libc = ctypes.CDLL(None, use_errno=True)

Ask = Callable[[], object]
"""Raises OSError if the kernel refuses a part."""


def try_nftables(messages: Sequence[bytes]) -> int:
    """Let the kernel check and discard a transaction; return the errno of a refusal, or 0."""
    try:
        with Ruleset() as ruleset:
            ruleset.try_out(messages)
    except NftablesError as exc:
        return exc.code
    except SteeringError as exc:
        cause = exc.__cause__
        return (isinstance(cause, OSError) and cause.errno) or errno.EPROTONOSUPPORT
    return 0


def try_parts(names: Sequence[str], more: Mapping[str, Ask]) -> dict[str, int]:
    """Try kernel parts outside nftables; return, by name, the errno of a refusal, or 0.

    Args:
        more: The trials of parts that this module can't try.
    """
    trials = {**_TRIALS, **more}

    def try_all() -> dict[str, int]:
        is_apart = any(map(_LEGACY.__contains__, names)) and _libc.unshare(_CLONE_NEWNET) == 0
        at = 0 if is_apart else 1
        return {name: _code_of(trials.get(name) or _LEGACY[name][at]) for name in names}

    # The trials run in a thread of their own: a new network namespace ends with the thread.
    with ThreadPoolExecutor(1, "kernel-trials") as pool:
        return pool.submit(try_all).result()


def _code_of(trial: Ask) -> int:
    try:
        trial()
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


@contextlib.contextmanager
def _or_loaded(modules: Sequence[str]) -> Iterator[None]:
    """Ignore that an option is missing if the iptables programs could load its module.

    Nothing is loaded here: iptables does so once there are rules.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT or not _can_load(modules):
            raise


def _can_load(modules: Sequence[str]) -> bool:
    try:
        # Outside the initial user namespace, CAP_SYS_MODULE doesn't permit loading modules.
        is_able = user_namespace() in (0, _FIRST_USER_NAMESPACE)
        if not (is_able and effective_capabilities() >> _CAP_SYS_MODULE & 1):
            return False
        program = _MODPROBE.read_text(encoding="utf-8").strip()
        command = [program, "-D", "-q", "-a", *modules]
        quiet = subprocess.DEVNULL
        done = subprocess.run(
            command,
            check=False,
            stdin=quiet,
            stdout=subprocess.PIPE,
            stderr=quiet,
            text=True,
            timeout=_MODPROBE_WITHIN_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return False
    return done.returncode == 0 and all(map(_is_there, done.stdout.splitlines()))


def _is_there(line: str) -> bool:
    """Return whether a line of ``modprobe -D`` names a loadable or built-in module."""
    kind, *words = line.split() or [""]
    return kind == "builtin" or (kind == "insmod" and bool(words) and Path(words[0]).exists())


def _ask_for_tables(version: int) -> None:
    modules = _LEGACY_MODULES[version]
    # For the trial, the kernel would load the modules, and before Linux 5.15 that would also create
    # their tables in the initial network namespace, so don't try tables whose modules can be
    # loaded.
    if not all((_MODULES / name).exists() for name in modules) and _can_load(modules):
        return
    for table in ("nat", "filter"):
        ask_legacy(version, GET_INFO, info_of(table))


def _ask_for_option(version: int) -> None:
    """Query an option that the tables' code answers even where no table can exist."""
    with _or_loaded(_LEGACY_MODULES[version]), contextlib.suppress(FileNotFoundError):
        # FileNotFoundError: the tables' code is loaded, but the match is missing.
        option = IPV6_GET_REVISION_MATCH if version == 6 else GET_REVISION_MATCH
        ask_legacy(version, option, SOCKET_REVISION)


def _ask_for_extensions() -> None:
    with _or_loaded(_EXTENSION_MODULES):
        _ask_for_each_extension()


def _ask_for_socket_match() -> None:
    with _or_loaded(["xt_socket"]):
        ask_legacy(4, GET_REVISION_MATCH, SOCKET_REVISION)


def _ask_for_each_extension() -> None:
    options = ((GET_REVISION_MATCH, _LEGACY_MATCHES), (GET_REVISION_TARGET, _LEGACY_TARGETS))
    for option, names in options:
        for name in names:
            try:
                ask_legacy(4, option, revision_of(name))
            except OSError as exc:
                # EPROTONOSUPPORT: the kernel has the extension in other revisions, so it isn't
                # missing.
                if exc.errno != errno.EPROTONOSUPPORT:
                    raise


def _ask_conntrack() -> None:
    with Requests.open(NETLINK_NETFILTER) as requests:
        requests.ask(request(_CONNTRACK_STATS, 0, _ANY_FAMILY))


def _list_sockets() -> None:
    with Requests.open(NETLINK_SOCK_DIAG) as requests:
        requests.list_all(request(_BY_FAMILY, DUMP, _NO_CONNECTION))


def _end_no_socket() -> None:
    with Requests.open(NETLINK_SOCK_DIAG) as requests:
        for _, code in requests.change([request(_DESTROY, 0, _NO_CONNECTION)]):
            if code != errno.ENOENT:
                raise OSError(code, os.strerror(code))


def _attach_filter() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        attach(sock, SO_ATTACH_FILTER, _PASS)


def _attach_choice() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        attach(sock, SO_ATTACH_REUSEPORT_CBPF, _PASS)


def _read_namespace() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)


_LEGACY: Mapping[str, tuple[Ask, Ask]] = {
    "legacy tables": (partial(_ask_for_tables, 4), partial(_ask_for_option, 4)),
    "legacy extensions": (_ask_for_extensions, _ask_for_extensions),
    "legacy socket match": (_ask_for_socket_match, _ask_for_socket_match),
    "legacy tables of IPv6": (partial(_ask_for_tables, 6), partial(_ask_for_option, 6)),
}
"""The trials of each part: in a network namespace of its own, and where none can be created."""
_TRIALS: Mapping[str, Ask] = {
    "conntrack netlink": _ask_conntrack,
    "IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close(),
    "socket filters": _attach_filter,
    "reuseport filters": _attach_choice,
    "sock_diag": _list_sockets,
    "namespaces of sockets": _read_namespace,
    "sock_diag destroy": _end_no_socket,
}
