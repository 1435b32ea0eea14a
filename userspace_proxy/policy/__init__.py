"""Which Services are ours, and which endpoints may serve from this node, and why not."""

from .ours import NodeFacts, why_ignored, why_port_ignored
from .usable import EndpointVerdict, Usable, usable_endpoints

__all__ = [
    "EndpointVerdict",
    "NodeFacts",
    "Usable",
    "usable_endpoints",
    "why_ignored",
    "why_port_ignored",
]
