"""Defines the exceptions of this package.

    UserspaceProxyError
    ├── ConfigError            a setting is wrong; exit status 2
    ├── InputError             an object or a file is wrong
    ├── SourceError            Services cannot be read at all
    ├── ListenError            a port cannot be opened
    │   └── ShortageError      no port at all can be opened
    │       └── BoundError     no port until another one closes
    ├── SteeringError          the kernel refused a rule or a route
    │   ├── SteeringConflict   another program owns that name or address
    │   └── SteeringUnreadable the kernel's state changed while it was read
    ├── LockHeld               another proxy of the same name runs on this node
    ├── SandboxError           a sandbox cannot be created or changed
    └── PlatformError          this operating system has no epoll; exit status 2

Modules define subclasses of these. Other exceptions are bugs; expected outcomes are values.
"""

from __future__ import annotations

import errno
from typing import Any

from .secrets import without_secrets

_NO_MEMORY = "the kernel has no memory for another socket: see the node's memory"
_SHORTAGE_HINTS = {
    errno.EMFILE: (
        "this process is out of descriptors: raise its limit of open files, RLIMIT_NOFILE, "
        "systemd's LimitNOFILE="
    ),
    errno.ENFILE: "this node is out of open files: raise the sysctl fs.file-max",
    errno.ENOBUFS: _NO_MEMORY,
    errno.ENOMEM: _NO_MEMORY,
    errno.ENOSPC: "a kernel limit is reached: see the sysctl fs.epoll.max_user_watches",
}


def shortage_hint(number: int | None) -> str:
    """Return the remedy for a shortage's errno; empty for None and for other errnos."""
    return _SHORTAGE_HINTS.get(number or 0, "")


class UserspaceProxyError(Exception):
    """The root of the exception tree; secrets are removed from its text, even from quoted errors.

    Args:
        message: *cannot <verb> <object with address>: <cause in the other side's words>*.
        hint: The remedy; empty if the message is enough.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = without_secrets(message)
        self.hint = without_secrets(hint)
        super().__init__(f"{self.message} ({self.hint})" if hint else self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the exception unchanged, regardless of its class's constructor."""
        return _make_again, (type(self), self.args, vars(self))


def _make_again(
    kind: type[UserspaceProxyError], args: tuple[Any, ...], fields: dict[str, Any]
) -> UserspaceProxyError:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


class ConfigError(UserspaceProxyError):
    """A flag, a field of a configuration file, an annotation, or their combination is invalid."""


class InputError(UserspaceProxyError):
    """An object or a file is invalid.

    The message starts with the place: ``web.yaml:14: spec.ports[0].port: …`` or
    ``Service shop/web: spec.ports[0].port: …``.
    """


class SourceError(UserspaceProxyError):
    """Services cannot be read: the file or server doesn't exist, or access is denied."""


class ListenError(UserspaceProxyError):
    """A port cannot be opened on this node.

    Args:
        cause: The text after the message's colon; empty if the message contains it.
    """

    def __init__(self, message: str, *, hint: str = "", cause: str = "") -> None:
        super().__init__(f"{message}: {cause}" if cause else message, hint=hint)
        self.cause = cause


class ShortageError(ListenError):
    """No port can be opened at all: out of descriptors, memory or proxy ports."""


class BoundError(ShortageError):
    """No port can be opened until this proxy closes another port."""


class SteeringError(UserspaceProxyError):
    """The kernel's rules, routes or other state cannot be read or changed."""

    is_lasting = False
    """Whether a retry can't succeed, because the kernel lacks a feature."""


class SteeringConflict(SteeringError):
    """A table, route or address that this proxy would create belongs to another program."""


class SteeringUnreadable(SteeringError):
    """The kernel's state kept changing while it was read; a retry may succeed."""


class LockHeld(UserspaceProxyError):
    """Another process holds the lock of this proxy's name in this network namespace."""


class SandboxError(UserspaceProxyError):
    """A sandbox, or a part of it, cannot be created, entered or changed here."""


class PlatformError(UserspaceProxyError):
    """A proxy cannot run on this operating system."""
