"""Forwards TCP connections and UDP flows; depends on neither Kubernetes nor the control process.

    client ─▶ listener ─▶ EndpointGroup: its balancers pick ─▶ dial, next on failure ─▶ relay
                 │                                                                       │
                 └─────────────── one edge-triggered epoll (Engine, Reactor) ────────────┘

The traffic path uses no asyncio tasks, transports or streams, only non-blocking sockets and one
epoll, which is nested in the caller's event loop.
"""

from .dataplane import AnyListener, DataPlane
from .endpoint_group import EndpointGroup
from .engine import Dialer, Engine, Opened
from .memory_pressure import MemoryState
from .tuning import Tuning
from .udp import UdpListener
from .waiting_room import Waiting

__all__ = [
    "AnyListener",
    "DataPlane",
    "Dialer",
    "EndpointGroup",
    "Engine",
    "MemoryState",
    "Opened",
    "Tuning",
    "UdpListener",
    "Waiting",
]
