"""Limits how many endpoints and frontends a Service and a namespace may have.

If its endpoints exceed the limit of the namespace, a Service refuses clients; if its frontends do,
it isn't planned (:mod:`userspace_proxy.shares`).
"""

from __future__ import annotations

ENDPOINTS_OF_SERVICE_MAX = 50_000
"""The maximum number of endpoints and source ranges of a Service, per port, family and side.

Five ports with 10,000 endpoints; a change of all of them takes half a second.
"""
ENDPOINTS_OF_NAMESPACE_MAX = 50_000
"""The maximum number of endpoints and source ranges of a namespace, counted in the same way.

These are 3,000 pods, as many as Kubernetes is tested with, with 16 ports each; they take 55 MiB,
half of that only after the page was opened. Source: Kubernetes' scalability thresholds."""
FRONTENDS_OF_SERVICE_MAX = 10_000
"""The maximum number of frontends of a Service: its ports and ranges times their addresses."""
FRONTENDS_OF_NAMESPACE_MAX = 10_000
"""The maximum number of frontends of a namespace's Services.

These are 5,000 Services, as many as Kubernetes is tested with, with one port and both families; the
default range has 13,000 proxy ports.
"""
