"""Sockets: listeners, TCP connections, UDP flows. Independent of Kubernetes.

    client ─▶ Listener ─▶ EndpointGroup.balancer.pick ─▶ dial, next on failure ─▶ relay
                 │                                                                  │
                 └────────────── one edge-triggered epoll (Reactor) ────────────────┘

There is no task, no transport and no stream on the traffic path: one epoll, nested
in whatever event loop the caller runs, and raw non-blocking sockets.
"""

from .base import AnyPlane, Group, OpenPort, Plane, PlaneState, WorkerState
from .counters import EndpointCounters, GroupCounters
from .dataplane import DataPlane, Listener
from .descriptors import raise_descriptor_limit
from .group import EndpointGroup
from .port_hold import get_nothing
from .ports import PortPool
from .serving import Serving
from .sockets import is_wildcard
from .tuning import Tuning
from .workers import WorkerPool, default_workers

__all__ = [
    "AnyPlane",
    "DataPlane",
    "EndpointCounters",
    "EndpointGroup",
    "Group",
    "GroupCounters",
    "Listener",
    "OpenPort",
    "Plane",
    "PlaneState",
    "PortPool",
    "Serving",
    "Tuning",
    "WorkerPool",
    "WorkerState",
    "default_workers",
    "get_nothing",
    "is_wildcard",
    "raise_descriptor_limit",
]
