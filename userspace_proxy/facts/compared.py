"""The facts by which the nodes of a cluster are compared.

Rule 1: as in ``port``: fields are only added, in the order of the JSON, and have defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from .figures import counter, gauge


class PlanFacts(msgspec.Struct, frozen=True):
    """Digests of the Services in force, without what is this node's own."""

    form: int = 0
    """Digests of another form can't be compared."""
    digest: str = ""
    """Of all; empty if there are none to compare: not yet, or the source has no EndpointSlices."""
    services: int = 0
    """How many Services it is of."""
    buckets: Sequence[str] = ()
    """Digests of the parts into which Services are put by their names; ``/api/v1/plan`` has those
    of single Services."""


class ProcessFacts(msgspec.Struct, frozen=True):
    """What the processes of the proxy take: that which plans, and those that carry traffic."""

    cpu_s: Annotated[
        float,
        counter("process_cpu_seconds", "seconds", "CPU time of the proxy and its workers"),
    ] = 0.0
    memory_bytes: Annotated[
        int,
        gauge(
            "process_memory_bytes", "bytes", "Resident memory of the proxy and its workers, summed"
        ),
    ] = 0
    """Resident; what they share counts in each."""
