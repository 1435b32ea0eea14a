"""Local steering: routes addresses of Services to this node, where listeners bind them.

    agent ── LocalSteering ── one thread: Programmer ─┬─ Wanted    what the kernel should have
                                                      └─ Guard ─┬─ NftGuard    routes and a table
                                                                ├─ RuleGuard   ip rules
                                                                └─ …

No NAT and no connection tracking: the listener sees the client's address and the one that it
dialled. **The trap**: whatever listens on 0.0.0.0 would answer at these addresses, too. So what
isn't a frontend is refused, by the guard. Source: kubernetes/kubernetes#72236.

Rule 1: only addresses that have frontends are brought here; in a network namespace of our own
the Service ranges, so that what no Service has is refused, too.
Rule 2: the node's own addresses are never guarded.
Rule 3: routes, rules and tables are ours by protocol number, name and the proxy's own number
(:func:`~..names.owner_number`).
"""

from .guards import missing
from .presence import is_present, labels, remove_routes
from .steering import LocalSteering

__all__ = ["LocalSteering", "is_present", "labels", "missing", "remove_routes"]
