"""What the proxies of all nodes share: Leases, which one proxy writes and others read.

Rule 1: a write names the version that was read, so of two writers the second one fails.
Rule 2: what fails is a SourceError; a caller tries again.

Source: coordination.k8s.io/v1, Lease.
"""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

DURATION_S = 45
"""A holder that hasn't renewed its Lease for that time has lost it."""


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
    """The Leases of the proxies of one cluster."""

    node_name: str
    """The node of this proxy."""

    @abc.abstractmethod
    async def read(self, name: str) -> Lease | None:
        """Return a Lease; None if there is none of that name.

        Raises:
            SourceError: It can't be read.
        """

    @abc.abstractmethod
    async def write(self, lease: Lease) -> Lease | None:
        """Write a Lease, and return it with its version; None if it has changed since.

        Raises:
            SourceError: It can't be written.
        """

    @abc.abstractmethod
    async def read_all(self) -> Sequence[Lease]:
        """Return all of them, in no order.

        Raises:
            SourceError: They can't be read.
        """

    @abc.abstractmethod
    def follow(self, name: str) -> AsyncIterator[Lease]:
        """Yield a Lease as it is, and after each change, until the server ends that.

        Raises:
            SourceError: It can't be read, or nothing was heard of the server for long.
        """

    @abc.abstractmethod
    async def nodes(self) -> frozenset[str]:
        """Return the names of all Nodes of the cluster.

        Raises:
            SourceError: They can't be read.
        """
