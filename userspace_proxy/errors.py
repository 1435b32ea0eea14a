"""Every exception this package raises on purpose.

    UserspaceProxyError
    ├── ConfigError            a setting is wrong; exit status 2
    ├── InputError             an object or a file is wrong: what, where, the way out
    ├── SourceError            Services cannot be read at all
    ├── ListenError            a port cannot be opened
    │   └── ShortageError      nor any other: descriptors, memory or proxy ports have run out
    ├── SteeringError          the kernel refused a rule or a route
    │   └── SteeringConflict   another program owns that name or address
    ├── LockHeld               another proxy runs on this node
    └── SandboxError           namespaces cannot be made here

Anything else that escapes is a bug, and is logged with its traceback. Expected
outcomes (no endpoint, a refused dial) are values, not exceptions.
"""

from __future__ import annotations

import errno

_SHORTAGE_HINTS = {
    errno.EMFILE: (
        "this process is out of descriptors: raise its limit of open files, RLIMIT_NOFILE, "
        "systemd's LimitNOFILE="
    ),
    errno.ENFILE: "this node is out of open files: raise the sysctl fs.file-max",
    errno.ENOBUFS: "the kernel has no memory for another socket: see the node's memory",
    errno.ENOMEM: "the kernel has no memory for another socket: see the node's memory",
    errno.ENOSPC: "a kernel limit is reached: see the sysctl fs.epoll.max_user_watches",
}


def shortage_hint(number: int | None) -> str:
    """Return what to do where the kernel had no socket to give; empty for other causes."""
    return _SHORTAGE_HINTS.get(number or 0, "")


class UserspaceProxyError(Exception):
    """The root of the tree.

    Args:
        message: *cannot <verb> <object with address>: <cause in the other side's words>*.
        hint: What to do about it, or empty when the message says it all.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(UserspaceProxyError):
    """A flag, a field of a configuration file, or their combination is wrong."""


class InputError(UserspaceProxyError):
    """An object that was given to us is not what it should be.

    The message starts with the place: ``web.yaml:14: spec.ports[0].port: …`` or
    ``Service shop/web: spec.ports[0].port: …``.
    """


class SourceError(UserspaceProxyError):
    """Services cannot be read: no such file, no such server, not allowed."""


class ListenError(UserspaceProxyError):
    """A port cannot be opened on this node."""


class ShortageError(ListenError):
    """No port can be opened at all: out of descriptors, memory or proxy ports."""


class SteeringError(UserspaceProxyError):
    """The kernel refused; what was in force before still holds."""


class SteeringConflict(SteeringError):
    """A table, route or address that bears our name belongs to somebody else."""


class LockHeld(UserspaceProxyError):
    """Another proxy of the same name serves this network namespace."""


class SandboxError(UserspaceProxyError):
    """A network namespace cannot be made or entered here."""
