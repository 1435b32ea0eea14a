"""What is drawn for one run: values that print, and that can be made smaller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NODES = ("alice", "bob", "carol")
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class WorkloadSpec:
    """A Deployment or StatefulSet at the beginning."""

    namespace: str
    kind: str
    """As in the annotation: ``deployment`` or ``statefulset``."""
    name: str
    labels: Labels
    """Those that its selector requires, and that its pods have."""
    replicas: int = 1

    @property
    def text(self) -> str:
        """What a Service names it by."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class ServiceSpec:
    """A Service."""

    namespace: str
    name: str
    number: int
    """Decides its address."""
    selector: Labels
    hold_s: int = 0
    """0: its clients don't wait."""
    wake: str = ""
    idle_s: int = 0
    """0: it doesn't ask for rest."""
    is_headless: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Step:
    """Something that happens at a time, in seconds from the beginning, or of a round."""

    at: float
    kind: str
    values: tuple[Any, ...] = ()
    round: int = 0
    """Of which round the time is counted from, the first being 1; 0: from the beginning."""

    def __str__(self) -> str:
        since = f"of round {self.round} " if self.round else ""
        return f"{self.at:9.3f} {since}{self.text}"

    @property
    def text(self) -> str:
        """What happens."""
        return " ".join(map(str, (self.kind, *self.values)))


@dataclass(frozen=True)
class Plan:
    """One run."""

    seed: int
    features: frozenset[str]
    workloads: tuple[WorkloadSpec, ...]
    services: tuple[ServiceSpec, ...]
    steps: tuple[Step, ...]
    chaos_s: float
    """After that the steps are over, and what they broke is repaired."""
    nodes: int = 2
    start_s: float = 1.0
    """At most so long a pod takes until it is ready."""
    end_s: float = 1.0
    """At most so long a pod serves after it was told to end."""
    controller_s: float = 0.05
    """At most so long a workload's controller takes to follow."""
    slices_s: float = 0.05
    """At most so long a slice is behind its pods."""
    lag_s: float = 0.01
    """At most so long the server's memory is behind etcd."""
    drain_s: float = 8.0
    """How long connections of the last process's workers may go on."""
    keeps_workers: bool = False
    """Workers outlive their agent."""
    keeps_files: bool = True
    """Agents have a folder for their state."""
    fails_wakes_s: float = 0.0
    """How long scales fail once the last clients come."""
    has_steady_end: bool = False
    """Some clients stay until the sums were compared."""
