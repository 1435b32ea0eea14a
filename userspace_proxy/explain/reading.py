"""The facts about one Service, of a running proxy or of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..facts import IgnoredFacts, PortFacts, RejectedFacts, StatusFacts
from ..model import CauseCode

NOT_LOOKED_UP = "not looked up"
"""The word for the state of a planned Service port whose endpoints only a lookup can find."""


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
    """Objects about it that have a mistake."""
    maybe_rejected: Sequence[RejectedFacts] = ()
    """Slices that name no Service, and by their own name may be for it, which has none."""
    others_rejected: Sequence[RejectedFacts] = ()
    """Objects with a mistake that aren't about it, as far as is known."""
    keeper: RejectedFacts | None = None
    """A mistake for which a removed object of it is kept."""
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
    others = [item for item in status.source.rejected if key not in item.services]
    has_no_slice = any(port.cause and port.cause.code == CauseCode.NO_SLICE for port in part.ports)
    maybe = [item for item in others if has_no_slice and _may_be_for(key, item)]
    return Subject(
        service=key,
        origin=origin,
        now=status.now,
        ports=part.ports,
        ignored=[item for item in status.ignored if item.service == key],
        node=status if is_live else None,
        rejected=status.source.rejected_of(key),
        maybe_rejected=maybe,
        others_rejected=[item for item in others if item not in maybe],
        keeper=status.source.keeper_of(key),
    )


def _may_be_for(service: str, item: RejectedFacts) -> bool:
    """Return whether a rejected object is a slice without a Service, named as a Service's are."""
    kind, _, name = item.object.partition(" ")
    return kind == "EndpointSlice" and not item.services and f"{name}-".startswith(f"{service}-")
