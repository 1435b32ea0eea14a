"""Bounds the numbers of endpoints and frontends of a Service and of a namespace.

A Service whose endpoints exceed its namespace's bound refuses clients; a Service whose frontends
exceed it isn't planned (:mod:`userspace_proxy.shares`).
"""

from __future__ import annotations

ENDPOINTS_OF_SERVICE_MAX = 50_000
"""The maximum of endpoints and source ranges of a Service, counted per port, family and side.

Five ports with 10,000 endpoints; a change of all of them takes half a second.
"""
ENDPOINTS_OF_NAMESPACE_MAX = 50_000
"""The maximum of endpoints and source ranges of a namespace's Services, counted in the same way.

3,000 pods, as many as Kubernetes is tested with, at 16 ports; they take 55 MiB, half of which only
after the page has been opened. Source: Kubernetes' scalability thresholds."""
FRONTENDS_OF_SERVICE_MAX = 10_000
"""The maximum number of frontends of a Service: its ports and ranges times their addresses."""
FRONTENDS_OF_NAMESPACE_MAX = 10_000
"""The maximum number of frontends of a namespace's Services.

5,000 Services, as many as Kubernetes is tested with, with one port and both families; the
default range of proxy ports has 13,000.
"""
