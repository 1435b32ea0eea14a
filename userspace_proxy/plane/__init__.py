"""The control half of the data plane: it opens and hands over sockets, and commands workers.

    Plane ──Link──▶ Worker ── DataPlane

A link connects the plane either to an unprivileged child process, over a channel that passes
sockets (SCM_RIGHTS), or to a worker in the caller's event loop, where each command is a plain call.
"""

from .group import Group, Totals
from .listener import Answer, Listener, PortPool, Wanted
from .plane import Plane
from .workers import default_workers

__all__ = [
    "Answer",
    "Group",
    "Listener",
    "Plane",
    "PortPool",
    "Totals",
    "Wanted",
    "default_workers",
]
