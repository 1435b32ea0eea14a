"""Decides which Services this proxy serves, and which endpoints are usable from this node."""

from .facts import PRIMARY, NodeFacts
from .ignored import why_ignored, why_port_ignored
from .usable import EndpointVerdict, Scope, Usable, count_local_ready, usable_endpoints

__all__ = [
    "PRIMARY",
    "EndpointVerdict",
    "NodeFacts",
    "Scope",
    "Usable",
    "count_local_ready",
    "usable_endpoints",
    "why_ignored",
    "why_port_ignored",
]
