"""The facts about one Service, of a running proxy or of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..diagnosis.judge import cause_of, says
from ..facts import IgnoredFacts, PortFacts, RejectedFacts, StatusFacts


@dataclass(frozen=True, slots=True)
class Subject:
    """One Service as it is served, or would be."""

    service: str
    """``namespace/name``."""
    origin: str
    """Where the facts are from, in words."""
    now: float
    ports: Sequence[PortFacts]
    ignored: Sequence[IgnoredFacts] = ()
    node: StatusFacts | None = None
    """None if no proxy was asked."""
    rejected: Sequence[RejectedFacts] = ()
    """Objects about it that have a mistake, where no port shows it."""
    others_rejected: Sequence[RejectedFacts] = ()
    """Objects with a mistake that aren't about it, as far as is known."""
    on_node: Sequence[PortFacts] = ()
    """The ports as on a node, where they were planned as with the steering ``none``."""


def read_subject(status: StatusFacts, service: str, origin: str, *, is_live: bool) -> Subject:
    """Return the facts about a Service, or one port of it.

    Args:
        status: An answer, which may contain other Services.
        service: ``namespace/name`` or ``namespace/name:port``.
        is_live: It is a running proxy's.
    """
    part, key = status.only(service), service.partition(":")[0]
    causes = [cause for port in part.ports for cause in port.state.causes]
    rejected = status.source.rejected
    shown = {item.line for item in rejected if any(says(one, cause_of(item)) for one in causes)}
    own = status.source.rejected_of(key)
    return Subject(
        service=key,
        origin=origin,
        now=status.now,
        ports=part.ports,
        ignored=[item for item in status.ignored if item.service == key],
        node=status if is_live else None,
        rejected=() if any(item.line in shown for item in own) else own,
        others_rejected=[i for i in rejected if key not in i.services and i.line not in shown],
    )
