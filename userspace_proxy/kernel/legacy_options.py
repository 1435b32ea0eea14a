"""Queries the legacy tables of iptables by socket options, without the iptables programs.

Source: include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h and
netfilter/x_tables.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

# IPT_SO_GET_INFO and IP6T_SO_GET_INFO; IPT_SO_GET_REVISION_MATCH and …_TARGET, which IPv6 numbers
# differently.
GET_INFO = 64
GET_REVISION_MATCH, GET_REVISION_TARGET = 66, 67
IPV6_GET_REVISION_MATCH = 68
_LEVELS = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# The size of struct ipt_getinfo: name, valid hooks, five hook entries, five underflows, the number
# of entries, bytes.
_INFO_BYTES = 84
_libc = ctypes.CDLL(None, use_errno=True)


def info_of(table: str) -> bytes:
    """Return the input value of option :data:`GET_INFO` for a table."""
    return table.encode().ljust(_INFO_BYTES, b"\0")


def revision_of(name: bytes, revision: int = 0) -> bytes:
    """Return the input value of :data:`GET_REVISION_MATCH` or :data:`GET_REVISION_TARGET`."""
    # struct xt_get_revision.
    return struct.pack("=29sB", name, revision)


SOCKET_REVISION = revision_of(b"socket", 2)
"""The first revision with the option "nowildcard": xt_socket_mtinfo2."""


def ask_legacy(version: int, option: int, given: bytes) -> bytes:
    """Read a socket option that takes an input value, which ``socket.getsockopt`` doesn't support.

    Raises:
        OSError: The kernel has no such table or option, or permission is denied.
    """
    buffer = ctypes.create_string_buffer(given, len(given))
    size = ctypes.byref(ctypes.c_uint32(len(buffer)))
    with socket.socket(_FAMILIES[version], socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        if _libc.getsockopt(sock.fileno(), _LEVELS[version], option, buffer, size) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    return buffer.raw
