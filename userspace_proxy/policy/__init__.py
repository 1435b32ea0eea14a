"""Decides which Services this proxy serves, and which endpoints are usable from this node."""

from .endpoint_index import EndpointIndex, PortName
from .facts import PRIMARY, NodeFacts
from .ignored import ignored_reason, own_address_reason, port_ignored_reason
from .no_endpoints import none_usable_reason
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
    "ignored_reason",
    "none_usable_reason",
    "own_address_reason",
    "port_ignored_reason",
    "usable_after",
    "usable_endpoints",
]
