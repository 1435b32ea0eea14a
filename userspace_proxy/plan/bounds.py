"""Defines how many endpoints and frontends a Service and a namespace may have.

A Service whose endpoints exceed the limit of the namespace refuses clients; a Service whose
frontends exceed it isn't planned (:mod:`userspace_proxy.shares`).
"""

from __future__ import annotations

ENDPOINTS_OF_SERVICE_MAX = 50_000
"""The maximum sum of endpoints and source ranges over a Service's ports, families and sides.

This allows five ports with 10,000 endpoints each; changing all of them takes half a second.
"""
ENDPOINTS_OF_NAMESPACE_MAX = 50_000
"""The maximum sum of endpoints and source ranges of a namespace, counted in the same way.

This allows 3,000 pods, as many as Kubernetes is tested with, with 16 ports each; they take 55 MiB,
of which half is allocated only when the status page is opened. Source: Kubernetes' scalability
thresholds."""
FRONTENDS_OF_SERVICE_MAX = 10_000
"""The maximum number of frontends of a Service: its ports and ranges times their addresses."""
FRONTENDS_OF_NAMESPACE_MAX = 10_000
"""The maximum number of frontends of a namespace's Services.

This allows 5,000 Services, as many as Kubernetes is tested with, with one port and both families;
the default range has 13,000 proxy ports.
"""
