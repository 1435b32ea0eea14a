"""Local steering: routes addresses of Services to this node, where listeners bind them.

    LocalSteering ── LocalProgrammer ─┬─ DesiredState
                                      └─ LocalGuard ─┬─ NftGuard    routes and a table
                                                     ├─ OpenGuard   routes alone
                                                     └─ NoGuard     nothing, without privileges

No NAT and no connection tracking: the listener sees the client's address and the address that it
dialled. A daemon that listens on 0.0.0.0 would answer at these addresses, too, so the guard rejects
everything that isn't a frontend. Source: kubernetes/kubernetes#72236.

Rule 1: only addresses with frontends are routed here; in a network namespace created for this
proxy the whole Service ranges, so that addresses without a Service are refused, too.
Rule 2: the node's own addresses are never guarded.
Rule 3: routes and tables belong to a proxy by protocol number, name and the proxy's own
number (:func:`~..names.owner_number`).
"""

from .guard import missing
from .kernel import is_present, remove_routes
from .steering import LocalSteering

__all__ = ["LocalSteering", "is_present", "missing", "remove_routes"]
