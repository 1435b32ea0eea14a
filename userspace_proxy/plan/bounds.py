"""How many endpoints and frontends a Service, and a namespace, may have.

A Service whose endpoints don't fit into its namespace is refused, and one whose frontends don't
isn't planned (:mod:`userspace_proxy.shares`).
"""

from __future__ import annotations

ENDPOINTS_OF_SERVICE_MAX = 100_000
"""Endpoints and source ranges of one Service, counted for each of its ports, families and sides.

Five ports with 10,000 endpoints of both families; a change of all of them takes less than a second.
"""
ENDPOINTS_OF_NAMESPACE_MAX = 500_000
"""Those of all Services of one namespace, counted likewise.

10,000 Services with 20 endpoints of both families have 400,000, and five of the largest Services
have as many; they take some 130 MiB.
"""
FRONTENDS_OF_SERVICE_MAX = 10_000
"""Frontends of one Service: its ports times their addresses."""
FRONTENDS_OF_NAMESPACE_MAX = 30_000
"""Frontends of all Services of one namespace.

10,000 Services with one port, both families and one load-balancer IP have as many; the default
range of proxy ports has 13,000.
"""
