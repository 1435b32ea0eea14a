"""The contract of every source.

    source ──publish(snapshot)──▶ agent        whenever something changes
    agent  ──status()──▶ source                at any time
    agent  ──record(happening)──▶ source       for users of the cluster

Rule 1: a source publishes only after it has read everything once.
Rule 2: a source that can't read doesn't publish, so the last snapshot stays applied.

A cluster's source also provides Leases, which the proxies of all nodes share: one proxy writes a
Lease, and others read it.

Rule 3: a write names the version that it is based on, so the second of two writers fails.
Rule 4: a failure raises SourceError, and the caller retries.

Source: coordination.k8s.io/v1, Lease.
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..cluster import Snapshot
from ..facts import RejectedFacts
from ..model import ServiceKey, Workload

Pause = Callable[[float], Awaitable[None]]
"""Waits for a number of seconds; tests pass a function that they control."""
pause: Pause = asyncio.sleep  # noqa: TID251 - polling, and waits before a retry
Publish = Callable[[Snapshot], None]
"""Accepts a snapshot; cheap, never raises; called in the event loop's thread."""
DURATION_S = 45
"""Seconds after which a holder that hasn't renewed its Lease has lost it."""


@dataclass(frozen=True, slots=True)
class Happening:
    """An occurrence on this node that operators should be able to see in the cluster."""

    reason: str
    """One word in CamelCase, as in Kubernetes Events: ``SteeringRepaired``."""
    action: str
    """The attempted action, in CamelCase like the reason: ``Repair``."""
    note: str
    """One sentence; it replaces an earlier note with the same reason and object."""
    service: ServiceKey | None = None
    """The object of the Event; None for the Node of this proxy."""
    is_warning: bool = True
    """Whether operators should investigate; False if it is part of normal operation."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The current state of a source."""

    is_synced: bool
    """Whether everything was read at least once."""
    is_current: bool = False
    """Whether the last published snapshot is up to date, as far as is known."""
    behind_s: float = 0.0
    """Seconds for which part of the snapshot has been outdated; 0.0 if it is current or missing."""
    problems: tuple[str, ...] = ()
    """One line per problem, with place and remedy."""
    restarts: int = 0
    """The number of watches that had to be replaced by a new list."""
    rejected: tuple[RejectedFacts, ...] = ()
    """The problems of individual objects."""


class ScaleDown(NamedTuple):
    """The result of an attempt to scale a workload to zero."""

    is_asleep: bool = False
    """Whether the workload has no replica now, or may have none because a response was lost."""
    reason: str = ""
    """The reason why it wasn't scaled; empty if there is nothing new to report, for example because
    clients need the workload."""


Labels = Mapping[str, str]
May = Callable[[Labels], str | None]
"""Returns None if a workload whose pods all have at least these labels may be scaled; otherwise the
reason with a remedy, or an empty string if the reason was already reported."""
Agree = Callable[[], Awaitable[bool]]
"""Returns whether all nodes agree that a workload has no clients."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One Lease, as read or to be written."""

    name: str
    holder: str = ""
    """The proxy that holds the Lease; empty if no proxy does."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """The annotations in this proxy's domain, by their names without the domain."""
    version: str = ""
    """The Lease's resourceVersion; empty if the Lease doesn't exist yet."""


class Leases(abc.ABC):
    """The Leases of one cluster's proxies; failures to read or write raise SourceError."""

    node_name: str
    """This proxy's node."""

    @abc.abstractmethod
    async def read(self, name: str) -> Lease | None:
        """Return a Lease; None if it doesn't exist."""

    @abc.abstractmethod
    async def write(self, lease: Lease) -> Lease | None:
        """Write a Lease, and return it with its new version; None if another writer was faster."""

    @abc.abstractmethod
    async def read_all(self) -> Sequence[Lease]:
        """Return all Leases, in any order."""

    @abc.abstractmethod
    def follow(self, name: str) -> AsyncIterator[Lease]:
        """Yield the Lease if it exists, and again after each change, until the watch ends.

        A deletion yields nothing. A server that is silent for too long counts as a failure.
        """

    @abc.abstractmethod
    async def nodes(self) -> frozenset[str]:
        """Return the names of all Nodes of the cluster."""


class Source(abc.ABC):
    """A provider of Services and the objects that belong to them."""

    kind: str
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str
    """The server's URL or the path, for logs and the page."""

    @property
    def identity(self) -> str:
        """The identity of the cluster or folder, known without a request after :meth:`check`."""
        return self.location

    def check(self) -> None:  # noqa: B027 - most sources can always begin
        """Raise early some of the SourceErrors that :meth:`run` would raise; may block briefly."""

    def resume(self, snapshot: Snapshot) -> None:  # noqa: B027 - most sources needn't
        """Begin with an earlier run's Services; call it before :meth:`run`.

        Nothing is published. Objects that the source reads unchanged stay the same objects, so they
        aren't planned again.
        """

    def want_nodes(self, is_wanted: bool) -> None:  # noqa: B027 - files contain them anyway
        """Start or stop including all Nodes' addresses in snapshots; cheap, idempotent."""

    def record(self, happening: Happening) -> None:  # noqa: B027 - files have no Events
        """Report an occurrence to the source's cluster, if it has one; never raises or waits."""

    async def wake(self, namespace: str, workload: Workload, may: May) -> str:
        """Scale a workload from zero to one replica; do nothing if it has replicas.

        Args:
            may: Called with the known labels of the workload's pods, after the scale was read.

        Returns: Why scaling failed, with the remedy; empty if the workload has replicas now,
            another program has just changed it, or ``may`` has reported the reason.
        """
        return f"{workload} can't be scaled: Services are read from {self.kind}, not from a cluster"

    async def scale_down(
        self, namespace: str, workload: Workload, may: May, agree: Agree
    ) -> ScaleDown:
        """Scale a workload from one replica to zero, unless something requires the replica.

        Args:
            may: Called with the known labels of the workload's pods, if it has one replica.
            agree: Awaited before the update, which fails if the scale has changed since.
        """
        return ScaleDown(reason=f"{workload} can't be scaled: Services are read from {self.kind}")

    def leases(self, node_name: str, prefix: str) -> Leases | None:
        """Return the Leases that the proxies of all nodes share; None without a cluster.

        Args:
            prefix: The prefix of Lease names, if a node has several proxies.
        """
        return None

    @abc.abstractmethod
    async def run(self, publish: Publish) -> None:
        """Read and publish until cancelled.

        Raises:
            SourceError: Reading can't begin (a missing path, a kubeconfig without a server). Later
                failures are problems in :meth:`status`.
        """

    @abc.abstractmethod
    def status(self) -> SourceStatus:
        """Return the current state."""
