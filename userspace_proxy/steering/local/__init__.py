"""Steers locally: routes Services' addresses to this node, where listeners bind them.

    LocalSteering ── LocalProgrammer ─┬─ DesiredState
                                      └─ LocalGuard ─┬─ NftGuard    routes and a table
                                                     ├─ OpenGuard   routes alone
                                                     └─ NoGuard     nothing, without privileges

The listener sees the client's address and the dialled address, without NAT and connection tracking.
A daemon that listens on 0.0.0.0 would also answer on Services' addresses, so the guard rejects all
traffic to these addresses that isn't for a frontend. Source: kubernetes/kubernetes#72236.

Rule 1: only addresses with frontends are routed here; in a network namespace that was created for
this proxy, whole Service ranges are routed, so that addresses without a Service are also refused.
Rule 2: the node's own addresses are never guarded.
Rule 3: the routes' protocol number and the proxy's own number (:func:`~..names.owner_number`) mark
routes of this proxy; the name marks its tables.
"""

from .guard import missing
from .kernel import is_present, remove_routes
from .steering import LocalSteering

__all__ = ["LocalSteering", "is_present", "missing", "remove_routes"]
