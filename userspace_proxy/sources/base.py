"""The contract of every source.

    source ──publish(snapshot)──▶ agent        whenever something changes
    agent  ──status()──▶ source                at any time
    agent  ──record(happening)──▶ source       for users of the cluster

Rule 1: nothing is published before everything was read once.
Rule 2: a source that can't read publishes nothing, so the last snapshot stays in force.

A source of a cluster also has what the proxies of all nodes share: Leases, which one proxy writes
and others read.

Rule 3: a write names the version that was read, so of two writers the second one fails.
Rule 4: what fails is a SourceError; a caller tries again.

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
"""Returns after that many seconds; tests pass one that they control."""
pause: Pause = asyncio.sleep  # noqa: TID251 - polling, and waits before a retry
Publish = Callable[[Snapshot], None]
"""Cheap, never raises; called in the event loop's thread."""
DURATION_S = 45
"""A holder that hasn't renewed its Lease for that time has lost it."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something on this node that operators should see in the cluster."""

    reason: str
    """One word in CamelCase, as in Kubernetes Events: ``SteeringRepaired``."""
    action: str
    """What was tried, likewise: ``Repair``."""
    note: str
    """One sentence; it replaces earlier ones with the same reason and object."""
    service: ServiceKey | None = None
    """The object of the Event; None: this node."""
    is_warning: bool = True
    """Whether operators should look into it; False: it is part of normal operation."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The current state of a source."""

    is_synced: bool
    """Everything was read at least once."""
    is_current: bool = False
    """What was published last is what the cluster or the files contain, as far as is known."""
    behind_s: float = 0.0
    """For how long a part of what was published hasn't been followed; 0.0 if it is current."""
    problems: tuple[str, ...] = ()
    """One line each, with the place and a remedy."""
    restarts: int = 0
    """How often a list had to follow a watch."""
    rejected: tuple[RejectedFacts, ...] = ()
    """Of the problems, those of single objects."""


class Rest(NamedTuple):
    """What became of an attempt to scale a workload to zero."""

    is_asleep: bool = False
    """It was scaled from one replica to zero, or may have been: the response was lost."""
    why_not: str = ""
    """What a user has to change first; empty if clients, or someone who scaled it, need it."""


Labels = Mapping[str, str]
May = Callable[[Labels], str | None]
"""Returns None if a workload may be scaled whose pods all have these labels, and perhaps more;
otherwise why not, with a remedy; empty if that is no news."""
Agree = Callable[[], Awaitable[bool]]
"""Returns whether all nodes agree now that a workload has no clients."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One Lease, as it was read or is to be written."""

    name: str
    holder: str = ""
    """The proxy that has it; empty: none."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Annotations of this proxy, without their domain."""
    version: str = ""
    """Empty: it doesn't exist yet."""


class Leases(abc.ABC):
    """The Leases of the proxies of one cluster; what can't be read or written is a SourceError."""

    node_name: str
    """The node of this proxy."""

    @abc.abstractmethod
    async def read(self, name: str) -> Lease | None:
        """Return a Lease; None if there is none of that name."""

    @abc.abstractmethod
    async def write(self, lease: Lease) -> Lease | None:
        """Write a Lease, and return it with its version; None if it has changed since."""

    @abc.abstractmethod
    async def read_all(self) -> Sequence[Lease]:
        """Return all of them, in no order."""

    @abc.abstractmethod
    def follow(self, name: str) -> AsyncIterator[Lease]:
        """Yield a Lease as it is, and after each change, until the server ends that.

        It is an error, too, if nothing was heard of the server for long.
        """

    @abc.abstractmethod
    async def nodes(self) -> frozenset[str]:
        """Return the names of all Nodes of the cluster."""


class Source(abc.ABC):
    """Provides Services and the objects that belong to them."""

    kind: str
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str
    """The server's URL or the path, for logs and the page."""

    @property
    def identity(self) -> str:
        """Names the cluster or folder without asking it; valid after :meth:`check`."""
        return self.location

    def check(self) -> None:  # noqa: B027 - most sources can always begin
        """Raise SourceError as :meth:`run` would, before all else is set up; blocks shortly."""

    def resume(self, snapshot: Snapshot) -> None:  # noqa: B027 - most sources needn't
        """Begin with the Services of an earlier run; call it before :meth:`run`.

        Nothing is published. What turns out to be equal stays the same objects, so it isn't
        planned again.
        """

    def want_nodes(self, is_wanted: bool) -> None:  # noqa: B027 - files contain them anyway
        """Include the addresses of all Nodes in snapshots, or no longer; cheap, idempotent."""

    def record(self, happening: Happening) -> None:  # noqa: B027 - files have no Events
        """Report to the cluster, if there is one; cheap, never raises, never waits."""

    async def wake(self, namespace: str, workload: Workload, may: May) -> str:
        """Scale a workload from zero to one replica; one that has replicas stays as it is.

        Args:
            may: Called first, with what is known of its pods.

        Returns:
            Why it can't, with the remedy; empty if it has replicas now.
        """
        return f"{workload} can't be scaled: Services are read from {self.kind}, not from a cluster"

    async def rest(self, namespace: str, workload: Workload, may: May, agree: Agree) -> Rest:
        """Scale a workload from one replica to zero, unless something else asks for replicas.

        Args:
            may: Called first, with what is known of its pods.
            agree: Awaited before the update; a change of the scale meanwhile prevents that.
        """
        return Rest(why_not=f"{workload} can't be scaled: Services are read from {self.kind}")

    def leases(self, node_name: str, prefix: str) -> Leases | None:
        """Return what the proxies of all nodes share; None: there is only one of them.

        Args:
            prefix: Begins the names of a proxy's Leases, if there are several proxies.
        """
        return None

    @abc.abstractmethod
    async def run(self, publish: Publish) -> None:
        """Read and publish until cancelled.

        Raises:
            SourceError: Reading can't begin (a path that doesn't exist, a kubeconfig without a
                server). Later failures are problems in :meth:`status`.
        """

    @abc.abstractmethod
    def status(self) -> SourceStatus:
        """Return the current state."""
