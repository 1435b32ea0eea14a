"""Listeners, TCP connections, UDP flows. Independent of Kubernetes and of the control process.

    client ─▶ listener ─▶ EndpointGroup: its balancers pick ─▶ dial, next on failure ─▶ relay
                 │                                                                       │
                 └─────────────── one edge-triggered epoll (Engine, Reactor) ────────────┘

There is no task, no transport and no stream on the traffic path: one epoll, nested in whatever
event loop the caller runs, and raw non-blocking sockets.
"""

from .dataplane import AnyListener, DataPlane
from .dialer import Dialer, Opened
from .endpoint_group import EndpointGroup
from .memory_pressure import MemoryState
from .port_reservation import get_nothing
from .tuning import Tuning
from .udp import UdpListener
from .waiting_room import Waiting

__all__ = [
    "AnyListener",
    "DataPlane",
    "Dialer",
    "EndpointGroup",
    "MemoryState",
    "Opened",
    "Tuning",
    "UdpListener",
    "Waiting",
    "get_nothing",
]
