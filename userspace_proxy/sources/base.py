"""The contract of every source.

    source ──publish(snapshot)──▶ agent        as often as something changes
    agent  ──status()──▶ source                at any moment

Rule 1: nothing is published before everything was read once.
Rule 2: a source that can't read keeps quiet: the last snapshot stays in force.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

from ..cluster import Snapshot

Publish = Callable[[Snapshot], None]
"""Takes a snapshot; cheap, never raises; called in the event loop's thread."""


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
