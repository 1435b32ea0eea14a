"""The nouns: Services and their ports, frontends, endpoints, slices, nodes.

Everything here is an immutable value that says what it is and compares by what
it says. Reading Kubernetes objects into these values is here too (``wire`` and
``reading``), because what a missing or null field means is part of the noun.

IP addresses are text in canonical form (``10.96.7.1``, ``fd00::1``): that is what
sockets, rules and logs take; :func:`parse_ip` is the only way in.
"""

from .addresses import Frontend, FrontendKind, IPFamily, Protocol, SocketAddress, pack_ip, parse_ip
from .endpoints import Endpoint, EndpointSlice, SlicePort
from .names import ServiceKey, ServicePortName, SliceKey
from .networks import contains, intersect, of_family, own_network
from .nodes import Node
from .services import Balance, Service, ServicePort, ServiceType

__all__ = [
    "Balance",
    "Endpoint",
    "EndpointSlice",
    "Frontend",
    "FrontendKind",
    "IPFamily",
    "Node",
    "Protocol",
    "Service",
    "ServiceKey",
    "ServicePort",
    "ServicePortName",
    "ServiceType",
    "SliceKey",
    "SlicePort",
    "SocketAddress",
    "contains",
    "intersect",
    "of_family",
    "own_network",
    "pack_ip",
    "parse_ip",
]
