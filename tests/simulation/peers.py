"""Judges that another worker, which learns what this one reports, knows of the same ejections.

    this worker ──ejected, returned──▶ Peer ◀──▶ what this worker has ejected, and until when
         └──────── each serving ────────▲

The peer is the data plane's own Service port without a client; it is told what workers tell each
other (``plane.worker``), and each side of it must equal the same side of this worker's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tests.port_keys import port_key
from userspace_proxy.balance import Balancer, SplitBalancer
from userspace_proxy.dataplane import EndpointGroup
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.serving import Serving

if TYPE_CHECKING:
    from .judgements import Judgements

ORACLE = "peer knows"


class Peer:
    """One Service port in another worker."""

    def __init__(self, judge: Judgements, label: str, serving: Serving) -> None:
        self._judge = judge
        self._group = EndpointGroup(port_key(label), serving)
        self._has_news = False

    def ejected(self, endpoint: SocketAddress, at: float, *, is_silent: bool) -> None:
        """Take the report of an ejection, which this worker has begun or prolonged then."""
        self._has_news = True
        self._group.balancers.current.failed(endpoint, at, is_silent=is_silent)

    def returned(self, endpoint: SocketAddress, at: float) -> None:
        """Take the report of an answer that has ended an ejection."""
        self._has_news = True
        self._group.outcomes.answered_elsewhere(endpoint, at)

    def updated(self, serving: Serving, at: float) -> None:
        """Take another serving, as this worker does."""
        self._has_news = True
        self._group.update(serving, at)

    def after_turn(self, group: EndpointGroup) -> None:
        """Judge what both know, if either has news."""
        if self._has_news:
            self._has_news = False
            own, other = _ejections(group), _ejections(self._group)
            why = f"{group.label}: this worker has ejected {own}, and another one {other}"
            self._judge.check(ORACLE, own == other, why)


def _ejections(group: EndpointGroup) -> list[Mapping[SocketAddress, tuple[float, float]]]:
    """Return of each side until when its endpoints are ejected, and for how long."""
    current = group.balancers.current
    sides = (current.inner, current.outer) if isinstance(current, SplitBalancer) else (current,)
    return [_of(side) for side in sides]


def _of(side: Balancer) -> Mapping[SocketAddress, tuple[float, float]]:
    return {e: (known.until, known.lasts_s) for e, known in side._ejections.ejected.items()}
