"""Where a test's backend listens: on loopback, or in a pod of a sandbox."""

from __future__ import annotations

import errno
import functools
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from userspace_proxy.errors import PlatformError
from userspace_proxy.model import IPFamily, SocketAddress

if TYPE_CHECKING:
    from .sandbox import Pod


class BackendPlace:
    """An address on this machine's loopback.

    Args:
        host: The IP address.
        port: The port; 0 for any free port.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address = SocketAddress(host, port)

    @property
    def pod(self) -> Pod | None:
        """The pod in which the backend listens; None on this machine's loopback."""
        return None

    def open_socket(self, type_: socket.SocketKind) -> socket.socket:
        """Return an unbound socket in this place, of the address's family."""
        return socket.socket(family_of(self.address.ip), type_)

    def bind(self, type_: socket.SocketKind, address: SocketAddress) -> socket.socket:
        """Return a socket bound to an address in this place.

        Raises:
            OSError: The address isn't available.
            PlatformError: The address is the IPv6 loopback address, and IPv6 is disabled.
        """
        sock = self.open_socket(type_)
        try:
            if type_ is socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except BaseException as exc:
            if getattr(exc, "errno", 0) == errno.EADDRNOTAVAIL and address.ip == "::1":
                sock.close()
                hint = "sysctl net.ipv6.conf.lo.disable_ipv6=0"
                raise PlatformError("IPv6 is switched off on this machine", hint=hint) from exc
            sock.close()
            raise
        return sock

    def command(self, argv: Sequence[str]) -> Sequence[str]:
        """Return a command that runs a program here and, if possible, ends with this process.

        That needs ``setpriv`` and the main thread, because the kernel kills the program when the
        thread that started it ends.
        """
        if threading.current_thread() is not threading.main_thread() or not shutil.which(argv[0]):
            return argv
        return [*_tie(), *argv]

    def leave(self) -> None:
        """Release the place for other backends. Idempotent."""


@functools.cache
def _tie() -> Sequence[str]:
    """Return the command prefix that makes the kernel kill a program when this process ends.

    The prefix is empty without util-linux 2.33 or later, which has the option.
    """
    tie = ("setpriv", "--pdeathsig", "KILL", "--")
    try:
        status = subprocess.run([*tie, "true"], capture_output=True, check=False).returncode
    except OSError:
        return ()
    return () if status else tie


def family_of(ip: str) -> socket.AddressFamily:
    """Return the socket family of an IP address."""
    return socket.AF_INET6 if IPFamily.of(ip) is IPFamily.IPV6 else socket.AF_INET
