"""Decides which Services this proxy serves, and which endpoints are usable from this node."""

from .endpoint_index import EndpointIndex
from .facts import PRIMARY, NodeFacts
from .ignored import why_ignored, why_own_address, why_port_ignored
from .no_endpoints import why_none_usable
from .options import PolicyOptions
from .path import DEFAULT_PATH, PathDecision, choose_path
from .usable import (
    ENDPOINTS_MAX,
    EndpointVerdict,
    Scope,
    Usable,
    count_local_ready,
    usable_endpoints,
)

__all__ = [
    "DEFAULT_PATH",
    "ENDPOINTS_MAX",
    "PRIMARY",
    "EndpointIndex",
    "EndpointVerdict",
    "NodeFacts",
    "PathDecision",
    "PolicyOptions",
    "Scope",
    "Usable",
    "choose_path",
    "count_local_ready",
    "usable_endpoints",
    "why_ignored",
    "why_none_usable",
    "why_own_address",
    "why_port_ignored",
]
