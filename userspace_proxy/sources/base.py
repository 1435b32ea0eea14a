"""The contract of every source.

    source ──publish(snapshot)──▶ agent        as often as something changes
    agent  ──status()──▶ source                at any moment
    agent  ──record(happening)──▶ source       for users of the cluster

Rule 1: nothing is published before everything was read once.
Rule 2: a source that can't read keeps quiet: the last snapshot stays in force.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

from ..cluster import Snapshot
from ..model import ServiceKey

Publish = Callable[[Snapshot], None]
"""Takes a snapshot; cheap, never raises; called in the event loop's thread."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something on this node that who looks after the cluster should be able to read there."""

    reason: str
    """One word in CamelCase, as Kubernetes Events have it: ``SteeringRepaired``."""
    action: str
    """What was tried, likewise: ``Repair``."""
    note: str
    """One sentence; of those with the same reason and object the last one counts."""
    service: ServiceKey | None = None
    """The Service that it is about; None: this node."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How reading goes at this moment."""

    is_synced: bool
    """Everything was read at least once."""
    problems: tuple[str, ...] = ()
    """What is wrong now, one line each: what, where, the way out."""
    restarts: int = 0
    """How often a watch had to begin anew with a list."""


class Source(abc.ABC):
    """Where Services come from."""

    kind: str
    """``kubernetes``, ``manifests`` or ``memory``."""
    location: str
    """The server's URL or the path, for logs and the page."""

    def check(self) -> None:  # noqa: B027 - most sources can always begin
        """See whether reading can begin, before anything else is set up; blocks shortly.

        Raises:
            SourceError: As :meth:`run` would.
        """

    def want_nodes(self, is_wanted: bool) -> None:  # noqa: B027 - files name them anyway
        """Have snapshots name all Nodes' addresses, where that has a cost; cheap, idempotent."""

    def record(self, happening: Happening) -> None:  # noqa: B027 - files can't be told
        """Tell the cluster, where there is one; cheap, never raises, waits for nothing."""

    @abc.abstractmethod
    async def run(self, publish: Publish) -> None:
        """Read for ever, and publish; ends only by cancellation.

        Raises:
            SourceError: Reading can't even begin (a path that doesn't exist, a
                kubeconfig without a server); trouble after that is never raised.
        """

    @abc.abstractmethod
    def status(self) -> SourceStatus:
        """Return how reading goes at this moment."""
