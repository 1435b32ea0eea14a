"""Defines the nouns: Services, their ports, frontends, endpoints, slices, nodes, node networks.

All nouns are immutable values. Kubernetes objects are also converted here (``wire`` and
``reading``), because a noun includes the meaning of its missing and null fields.

IP addresses are text in canonical form (``10.96.7.1``, ``fd00::1``), as in sockets, rules and logs;
only :func:`parse_ip` creates them.

Import ``serving``, ``wire`` and ``reading`` by their own names: they need msgspec, which ``--help``
and programs without dependencies (in a sandbox) don't import.
"""

from .addresses import (
    Frontend,
    FrontendKind,
    IPFamily,
    Protocol,
    SocketAddress,
    contains,
    intersect,
    ip_of,
    is_loopback,
    of_family,
    own_network,
    pack_ip,
    parse_ip,
    port_of,
)
from .endpoints import DEFAULT_WEIGHT, Endpoint, EndpointSlice, SlicePort
from .failures import DialFailure, Failure
from .handling import (
    DEFAULT_HANDLING,
    Balance,
    DataPath,
    Handling,
    Hold,
    ProxyProtocol,
    Workload,
    WorkloadKind,
)
from .names import PortKey, ServiceKey, ServicePortName, Side, SliceKey
from .node_network import Node, Taken
from .services import Service, ServicePort, ServiceType

__all__ = [
    "DEFAULT_HANDLING",
    "DEFAULT_WEIGHT",
    "Balance",
    "DataPath",
    "DialFailure",
    "Endpoint",
    "EndpointSlice",
    "Failure",
    "Frontend",
    "FrontendKind",
    "Handling",
    "Hold",
    "IPFamily",
    "Node",
    "PortKey",
    "Protocol",
    "ProxyProtocol",
    "Service",
    "ServiceKey",
    "ServicePort",
    "ServicePortName",
    "ServiceType",
    "Side",
    "SliceKey",
    "SlicePort",
    "SocketAddress",
    "Taken",
    "Workload",
    "WorkloadKind",
    "contains",
    "intersect",
    "ip_of",
    "is_loopback",
    "of_family",
    "own_network",
    "pack_ip",
    "parse_ip",
    "port_of",
]
