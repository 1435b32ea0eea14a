"""Words that an endpoint doesn't answer clients of one side of a Service, and answers the others.

    Service ports ──▶ those of two sides ──▶ an endpoint that one side's clients miss, and another's
                                             reach ──▶ the same ports, with another cause

The sides' connections come from different addresses, so a firewall may drop those of one.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..facts import LATELY_S, EndpointFacts, PortFacts, StateFacts
from ..model import Cause, CauseCode

_HINT = (
    "Look for a NetworkPolicy, or another firewall at the pod, that denies these clients, whose "
    "own addresses the endpoint may see"
)
_Key = tuple[str, str, str, str, str]


def with_sides(
    ports: Sequence[PortFacts], judge: Callable[[PortFacts], StateFacts]
) -> Sequence[PortFacts]:
    """Return Service ports whose endpoints don't answer one side with that cause.

    All others are the same objects.
    """
    services = {(port.namespace, port.service) for port in ports if port.side}
    if not services:
        return ports
    sided = [(port.namespace, port.service) in services for port in ports]
    answered = _answered(itertools.compress(ports, sided))
    return [
        _changed(port, answered, judge) if is_sided else port
        for port, is_sided in zip(ports, sided, strict=True)
    ]


def _answered(ports: Iterable[PortFacts]) -> Mapping[_Key, float]:
    """Return when each endpoint last answered a dial of a side whose clients it doesn't fail."""
    found: dict[_Key, float] = {}
    for port in ports:
        for endpoint in port.endpoints:
            if endpoint.cause is None and endpoint.answered_at:
                key = _key(port, endpoint)
                found[key] = max(endpoint.answered_at, found.get(key, 0.0))
    return found


def _key(port: PortFacts, endpoint: EndpointFacts) -> _Key:
    return port.namespace, port.service, port.port, port.family, endpoint.address


def _changed(
    port: PortFacts, answered: Mapping[_Key, float], judge: Callable[[PortFacts], StateFacts]
) -> PortFacts:
    causes = {
        endpoint.address: _of_some(endpoint.cause)
        for endpoint in port.endpoints
        if endpoint.cause is not None
        and not endpoint.is_past
        and _answers_others(endpoint.cause, answered.get(_key(port, endpoint), 0.0))
    }
    if not causes:
        return port
    changed = copy.copy(port)
    vars(changed).update(vars(port))
    changed.endpoints = tuple(map(copy.copy, port.endpoints))
    for endpoint in changed.endpoints:
        endpoint.cause = causes.get(endpoint.address, endpoint.cause)
    changed.state = judge(changed)
    return changed


def _answers_others(cause: Cause, answered_at: float) -> bool:
    """Return whether an endpoint has answered others since it doesn't answer, and lately."""
    if cause.code is not CauseCode.ENDPOINT_SILENT:
        return False
    return answered_at > cause.first_at and cause.last_at - answered_at < LATELY_S


def _of_some(cause: Cause) -> Cause:
    """Return the cause of an endpoint that is silent, without the reasons that others exclude."""
    sentence = (
        f"{cause.object} does not answer clients that dial these addresses, and answers others"
    )
    return dataclasses.replace(cause, sentence=sentence, hint=_HINT)
