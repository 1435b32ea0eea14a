"""The control half of the traffic: opens, keeps and hands over sockets, and commands workers.

    Plane ──Link──▶ Worker ── DataPlane

A link connects to a child process without privileges, over a channel that passes sockets
(SCM_RIGHTS), or to a worker in the caller's own loop, where commands are plain calls.
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
