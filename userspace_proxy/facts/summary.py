"""A summary of an answer, for a reader of many nodes: only what needs attention."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from .node import StatusFacts
from .port import Level


def summarised(answer: StatusFacts, also: Collection[str] = ()) -> StatusFacts:
    """Return an answer with what needs attention.

    Args:
        also: Services, ``namespace/name``, that are wanted anyway.
    """
    part = answer.part(
        [
            port
            for port in answer.ports
            if port.state.level is not Level.OK or (also and port.names[0] in also)
        ],
        [item for item in answer.ignored if item.is_conflict or item.service in also],
        [check for check in answer.health_checks if check.problem or check.service in also],
    )
    # How long their iterations took changes all the time.
    part.workers = [
        msgspec.structs.replace(one, iterations=(), iterations_s=0.0) for one in answer.workers
    ]
    return part
