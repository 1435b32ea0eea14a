"""Decides which Services this proxy serves, and which endpoints are usable from this node."""

from .endpoint_index import EndpointIndex, PortName
from .facts import PRIMARY, NodeFacts
from .ignored import why_ignored, why_own_address, why_port_ignored
from .no_endpoints import why_none_usable
from .options import PolicyOptions
from .path import DEFAULT_PATH, PathDecision, choose_path
from .usable import (
    ENDPOINTS_MAX,
    EndpointVerdict,
    Refusals,
    Scope,
    Usable,
    count_local_ready,
    usable_endpoints,
)
from .usable_changes import usable_after

__all__ = [
    "DEFAULT_PATH",
    "ENDPOINTS_MAX",
    "PRIMARY",
    "EndpointIndex",
    "EndpointVerdict",
    "NodeFacts",
    "PathDecision",
    "PolicyOptions",
    "PortName",
    "Refusals",
    "Scope",
    "Usable",
    "choose_path",
    "count_local_ready",
    "usable_after",
    "usable_endpoints",
    "why_ignored",
    "why_none_usable",
    "why_own_address",
    "why_port_ignored",
]
